//! Two or three real endpoints.

use std::time::Duration;

use node::transport::{ALPN, Services, Transport, TransportConfig, TransportError, TransportEvent};
use wire::{Hash, Identity, Message, PROTOCOL_VERSION, PeerId, RunId};

pub(crate) fn identity(byte: u8) -> Identity {
    Identity::from_secret([byte; 32])
}

pub(crate) async fn bind(who: &Identity) -> Transport {
    Transport::bind(&TransportConfig::default(), who, Services::default()).await.unwrap()
}

fn hello(height: u64) -> Message {
    Message::Hello { version: PROTOCOL_VERSION, run: RunId(Hash::of(b"run")), height, open: None }
}

async fn next(transport: &mut Transport) -> TransportEvent {
    tokio::time::timeout(Duration::from_secs(20), transport.next()).await.expect("an event within 20 s")
}

fn introduce(a: &Transport, b: &Transport, b_id: PeerId) {
    a.dialer().set_address(b_id, b.dialer().address());
}

async fn connected_pair() -> (Transport, PeerId, Transport, PeerId) {
    let (alice, bob) = (identity(1), identity(2));
    let (mut a, mut b) = (bind(&alice).await, bind(&bob).await);
    introduce(&a, &b, bob.id());
    a.connect(bob.id());
    assert!(matches!(next(&mut a).await, TransportEvent::Connected(peer) if peer == bob.id()));
    assert!(matches!(next(&mut b).await, TransportEvent::Connected(peer) if peer == alice.id()));
    (a, alice.id(), b, bob.id())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_in_order_both_ways_and_are_counted() {
    let (mut a, alice, mut b, bob) = connected_pair().await;
    for height in 0..100 {
        a.send(bob, &hello(height));
        b.send(alice, &hello(1000 + height));
    }
    for height in 0..100 {
        let TransportEvent::Received { from, message, .. } = next(&mut b).await else { panic!("not a message") };
        assert_eq!((from, *message), (alice, hello(height)));
        let TransportEvent::Received { from, message, .. } = next(&mut a).await else { panic!("not a message") };
        assert_eq!((from, *message), (bob, hello(1000 + height)));
    }
    let bytes = 100 * (4 + wire::encode(&hello(0)).len() as u64);
    let sent = a.dialer().traffic()[&bob].sent;
    let received = b.dialer().traffic()[&alice].received;
    assert!(sent > bytes, "{sent} includes more than the {bytes} bytes of frames");
    assert!(received > bytes && received <= sent, "{received} of {sent}");
    a.shutdown().await;
    assert!(matches!(next(&mut b).await, TransportEvent::Disconnected(peer) if peer == alice));
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_message_arrives_whole() {
    let (mut a, _, mut b, bob) = connected_pair().await;
    let header = wire::BlockHeader {
        run: RunId(Hash::of(b"run")),
        height: 0,
        parent: Hash::default(),
        time_us: 0,
        transactions_root: Hash::default(),
        ledger_root: Hash::default(),
    };
    let action = wire::Action::Attest(wire::Attestation { round: 0, stage: 0, state_root: Hash::default() });
    let transaction = identity(1).sign(wire::Transaction { run: header.run, action });
    let block = wire::Block { header: identity(1).sign(header), transactions: vec![transaction; 4096].into() };
    let message = Message::Blocks(vec![block; 10]);
    assert!(wire::encode(&message).len() > 5 << 20);
    a.send(bob, &message);
    let TransportEvent::Received { message: received, .. } = next(&mut b).await else { panic!("not a message") };
    assert_eq!(*received, message);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_connects_leave_one_connection() {
    let (alice, bob) = (identity(1), identity(2));
    let (mut a, mut b) = (bind(&alice).await, bind(&bob).await);
    introduce(&a, &b, bob.id());
    introduce(&b, &a, alice.id());
    a.connect(bob.id());
    b.connect(alice.id());
    // However the two dials interleave, a message sent once both sides settled arrives exactly once, both ways.
    let (mut from_a, mut from_b) = (false, false);
    while !(from_a && from_b) {
        tokio::select! {
            event = next(&mut a) => match event {
                TransportEvent::Connected(_) => a.send(bob.id(), &hello(1)),
                TransportEvent::Received { .. } => from_b = true,
                _ => {}
            },
            event = next(&mut b) => match event {
                TransportEvent::Connected(_) => b.send(alice.id(), &hello(2)),
                TransportEvent::Received { .. } => from_a = true,
                _ => {}
            },
        }
    }
    assert!(a.is_connected(bob.id()) && b.is_connected(alice.id()));
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_version_is_told_apart_from_one_that_is_away() {
    let (alice, bob, carol) = (identity(1), identity(2), identity(3));
    let mut a = bind(&alice).await;
    let other = TransportConfig { alpn: b"cairn/999".to_vec(), ..TransportConfig::default() };
    assert_ne!(other.alpn, ALPN);
    let b = Transport::bind(&other, &bob, Services::default()).await.unwrap();
    introduce(&a, &b, bob.id());
    a.connect(bob.id());
    match next(&mut a).await {
        TransportEvent::ConnectFailed { peer, error: TransportError::WrongVersion { .. } } => {
            assert_eq!(peer, bob.id())
        }
        other => panic!("{other:?}"),
    }
    a.connect(carol.id());
    match next(&mut a).await {
        TransportEvent::ConnectFailed { peer, error: TransportError::UnknownPeer { .. } } => {
            assert_eq!(peer, carol.id())
        }
        other => panic!("{other:?}"),
    }
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_reported() {
    let alice = identity(1);
    let mut a = bind(&alice).await;
    let stranger = iroh::Endpoint::builder(iroh::endpoint::presets::Minimal)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .unwrap()
        .bind()
        .await
        .unwrap();
    let id = iroh::EndpointId::from_bytes(&alice.id().0).unwrap();
    let address = iroh::EndpointAddr::new(id).with_ip_addr(a.dialer().address());
    let connection = stranger.connect(address, ALPN).await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[3, 0, 0, 0, 0xff, 0xff, 0xff]).await.unwrap();
    assert!(matches!(next(&mut a).await, TransportEvent::Connected(_)));
    assert!(matches!(next(&mut a).await, TransportEvent::Undecodable { .. }));
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    match next(&mut a).await {
        TransportEvent::Undecodable { error, .. } => assert!(error.contains("limit"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(next(&mut a).await, TransportEvent::Disconnected(_)));
    a.shutdown().await;
    stranger.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_replaces_its_old_connection() {
    let (mut a, alice, b, bob) = connected_pair().await;
    let address = a.dialer().address();
    drop(b);
    let mut again = bind(&identity(2)).await;
    again.dialer().set_address(alice, address);
    again.connect(alice);
    assert!(matches!(next(&mut again).await, TransportEvent::Connected(_)));
    // The old connection may be noticed as closed first, or be replaced: either way it ends connected to the new one.
    again.send(alice, &hello(5));
    loop {
        if let TransportEvent::Received { from, message, .. } = next(&mut a).await {
            assert_eq!((from, *message), (bob, hello(5)));
            break;
        }
    }
    assert!(a.is_connected(bob));
    a.shutdown().await;
    again.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_an_error_that_names_it() {
    let a = bind(&identity(1)).await;
    let config = TransportConfig { bind: a.dialer().address(), ..TransportConfig::default() };
    let error = Transport::bind(&config, &identity(2), Services::default()).await.unwrap_err();
    assert!(error.to_string().contains(&a.dialer().address().to_string()), "{error}");
    a.shutdown().await;
}
