//! Taking connections: the accept loop under both servers, with bounds on how many, how long and how large.

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// What is sent back.
pub type Reply = Response<BoxBody<Bytes, io::Error>>;

/// The longest that the head of a request may take to arrive.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// The longest that a client may pause while it sends a body.
const BODY_PAUSE: Duration = Duration::from_secs(30);
/// How long, and how many bytes beyond the bound, the rest of a body that is too long is read.
const DRAIN: Duration = Duration::from_secs(2);
const DRAINED: u64 = 16 << 20;
/// The longest that answers under way are waited for once the server is to end.
const GRACE: Duration = Duration::from_millis(200);

/// What a server is willing to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Connections at the same time; further ones wait to be accepted.
    pub connections: usize,
    /// Bytes of one request's body.
    pub body: u64,
}

/// Reads `ADDRESS:PORT`, or a port on loopback.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let text = text.replacen("localhost:", "127.0.0.1:", 1);
    text.parse()
        .map_err(|_| "expected ADDRESS:PORT, such as 127.0.0.1:8000".to_string())
}

/// Returns whether others than this machine can reach the address.
pub fn is_open(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback(),
    }
}

/// Serves connections until `stop` is done, and then for a moment what is under way.
pub async fn serve<H, F>(
    listener: TcpListener,
    bounds: Bounds,
    handler: H,
    stop: impl Future<Output = ()>,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(bounds.connections));
    let mut stop = std::pin::pin!(stop);
    loop {
        let seat = tokio::select! {
            () = &mut stop => break,
            seat = Arc::clone(&seats).acquire_owned() => seat,
        };
        let Ok(seat) = seat else { break };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: some will be free in a moment.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Tokens are small and must not wait for one another.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let answer = move |request| {
            let answer = handler(request);
            async move { Ok::<_, Infallible>(answer.await) }
        };
        tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
            // A client that breaks off or talks nonsense is told by hyper what can be told.
            let _ = http
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
            drop(seat);
        });
    }
    drop(listener);
    let _ = timeout(GRACE, seats.acquire_many(bounds.connections as u32)).await;
}

/// Why a body was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyError {
    /// It is longer than the bound.
    TooLarge,
    /// It stopped arriving.
    Broken,
}

/// Reads a whole body, within the bound.
///
/// Of one that is too long the rest is read and thrown away for a while: a client that is still sending would see a broken
/// connection instead of the answer.
pub async fn body(mut incoming: Incoming, most: u64) -> Result<Bytes, BodyError> {
    let too_large = incoming.size_hint().lower() > most;
    let mut whole = BytesMut::new();
    let (mut thrown, mut full) = (0, too_large);
    let until = tokio::time::Instant::now() + DRAIN;
    loop {
        let frame = timeout(BODY_PAUSE, incoming.frame()).await;
        let frame = match frame.map_err(|_| BodyError::Broken)? {
            None if full => return Err(BodyError::TooLarge),
            None => return Ok(whole.freeze()),
            Some(frame) => frame.map_err(|_| BodyError::Broken)?,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        full |= (whole.len() + data.len()) as u64 > most;
        if !full {
            whole.extend_from_slice(&data);
            continue;
        }
        thrown += data.len() as u64;
        if thrown > most.saturating_add(DRAINED) || tokio::time::Instant::now() > until {
            return Err(BodyError::TooLarge);
        }
    }
}

/// Returns an answer that is sent as it is.
pub fn whole(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Reply {
    let full = http_body_util::Full::new(text.into()).map_err(|never| match never {});
    let mut reply = Response::new(BodyExt::boxed(full));
    *reply.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    reply
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    reply
}

/// A body that arrives piece by piece. A closed channel ends it; an error breaks it off in the client's sight.
#[derive(Debug)]
pub struct Pipe {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Pipe {
    /// Returns the way to fill a body, and the body; `room` pieces wait for a slow reader before the writer does.
    pub fn new(room: usize) -> (mpsc::Sender<io::Result<Bytes>>, Pipe) {
        let (fill, pieces) = mpsc::channel(room);
        (fill, Pipe { pieces })
    }
}

impl Body for Pipe {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = self.pieces.poll_recv(context);
        polled.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
