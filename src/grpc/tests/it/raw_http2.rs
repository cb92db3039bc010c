//! A client that speaks just enough HTTP/2 to see every frame: libraries hide
//! the difference between trailers and RST_STREAM, which is what gateways
//! live or die by.

use std::net::SocketAddr;

use flotilla_certs::ClientTls;
use prost::Message;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub struct RawClient {
    io: TlsStream<TcpStream>,
    next_stream: u32,
    /// Whether received data is given back to the sender's window.
    pub reading: bool,
}

impl RawClient {
    /// Connects and says nothing yet.
    pub async fn silent(address: SocketAddr, tls: &ClientTls) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::from(address.ip());
        let io = TlsConnector::from(tls.config()).connect(name, stream).await.unwrap();
        RawClient { io, next_stream: 1, reading: true }
    }

    /// Connects; `window` is how much a stream may send before it is read.
    pub async fn connect(address: SocketAddr, tls: &ClientTls, window: u32) -> Self {
        let mut client = Self::silent(address, tls).await;
        client.io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        // SETTINGS_INITIAL_WINDOW_SIZE
        let mut settings = vec![0, 4];
        settings.extend_from_slice(&window.to_be_bytes());
        client.write(SETTINGS, 0, 0, &settings).await;
        client
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // A server that has gone is seen when reading.
        let _ = self.io.write_all(&frame).await;
        let _ = self.io.flush().await;
    }

    /// The connection, for what is not HTTP/2.
    pub fn io(&mut self) -> &mut TlsStream<TcpStream> {
        &mut self.io
    }

    /// Sends pings that nobody asked for.
    pub async fn ping(&mut self, times: usize) {
        for _ in 0..times {
            self.write(PING, 0, 0, &[7; 8]).await;
        }
    }

    /// Starts a call and returns its stream.
    pub async fn call(&mut self, method: &str, request: &impl Message) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let path = format!("/avapigw.operator.v1alpha1.ConfigurationService/{method}");
        let mut headers = Vec::new();
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", path.as_str()),
            (":authority", "replica"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in fields {
            // Literal, not indexed, new name, no Huffman.
            headers.push(0);
            for text in [name, value] {
                assert!(text.len() < 127);
                headers.push(u8::try_from(text.len()).unwrap());
                headers.extend_from_slice(text.as_bytes());
            }
        }
        self.write(HEADERS, END_HEADERS, stream, &headers).await;
        let message = request.encode_to_vec();
        let mut data = vec![0];
        data.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&message);
        self.write(DATA, END_STREAM, stream, &data).await;
        stream
    }

    /// The next frame; `None` when the server has closed the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.io.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await,
            PING if frame.flags & ACK == 0 => {
                let payload = frame.payload.clone();
                self.write(PING, ACK, 0, &payload).await;
            }
            DATA if self.reading && !frame.payload.is_empty() => {
                let read = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                self.write(WINDOW_UPDATE, 0, 0, &read).await;
                self.write(WINDOW_UPDATE, 0, frame.stream, &read).await;
            }
            _ => {}
        }
        Some(frame)
    }

    /// All frames until `last` says so or the connection is closed.
    pub async fn frames_until(&mut self, mut last: impl FnMut(&Frame) -> bool) -> Vec<Frame> {
        let mut seen = Vec::new();
        while let Some(frame) = self.frame().await {
            let done = last(&frame);
            seen.push(frame);
            if done {
                break;
            }
        }
        seen
    }
}
