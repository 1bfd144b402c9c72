//! Any text is a ticket that is written and read again as the same, or gives an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::Ticket;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ticket) = String::from_utf8_lossy(bytes).parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
});
