//! A plain HTTP/1.1 client that shows exactly what is on the wire.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longer than any answer takes; a test that reaches it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    unread: Vec<u8>,
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    head: String,
    host: bool,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { head: format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n"), host: false, body: Vec::new() }
    }

    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self::new("POST", path).header("Content-Type", "application/json").body(body.to_string())
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.host |= name.eq_ignore_ascii_case("host");
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and reads the head of the answer.
    pub(crate) async fn start(self, address: SocketAddr) -> Live {
        tokio::time::timeout(PATIENCE, self.exchange(address)).await.expect("an answer in time")
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self, address: SocketAddr) -> Answer {
        let mut live = self.start(address).await;
        let mut body = Vec::new();
        while let Some(part) = live.part().await {
            body.extend(part);
        }
        Answer { status: live.status, headers: live.headers, body }
    }

    async fn exchange(self, address: SocketAddr) -> Live {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let host = if self.host { String::new() } else { format!("Host: {address}\r\n") };
        let head = format!("{}{host}Content-Length: {}\r\n\r\n", self.head, self.body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a large body may close before it is all sent; its answer counts.
        let _ = stream.write_all(&self.body).await;
        let mut reader = BufReader::new(stream);
        let status = line(&mut reader).await.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let text = line(&mut reader).await;
            if text.is_empty() {
                break;
            }
            let (name, value) = text.split_once(": ").unwrap();
            headers.push((name.to_owned(), value.to_owned()));
        }
        Live { status, headers, reader, unread: Vec::new() }
    }
}

async fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut text = String::new();
    reader.read_line(&mut text).await.unwrap();
    text.trim_end_matches("\r\n").to_owned()
}

impl Live {
    /// The next part of the body as the server sent it; none at its end.
    pub(crate) async fn part(&mut self) -> Option<Vec<u8>> {
        tokio::time::timeout(PATIENCE, self.read()).await.expect("a part in time")
    }

    async fn read(&mut self) -> Option<Vec<u8>> {
        if header(&self.headers, "transfer-encoding") != Some("chunked") {
            let mut rest = Vec::new();
            self.reader.read_to_end(&mut rest).await.unwrap();
            return (!rest.is_empty()).then_some(rest);
        }
        let size = line(&mut self.reader).await;
        let size = if size.is_empty() { 0 } else { usize::from_str_radix(&size, 16).unwrap() };
        let mut part = vec![0; size];
        self.reader.read_exact(&mut part).await.unwrap();
        line(&mut self.reader).await;
        (size > 0).then_some(part)
    }

    /// The next server-sent event with its fields; none at the end of the stream. Comments are skipped.
    pub(crate) async fn event(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                if event.starts_with(b":") {
                    continue;
                }
                return Some(String::from_utf8(event).unwrap());
            }
            let part = self.part().await?;
            self.unread.extend(part);
        }
    }

    /// All events that are left.
    pub(crate) async fn events(mut self) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await {
            events.push(event);
        }
        events
    }
}
