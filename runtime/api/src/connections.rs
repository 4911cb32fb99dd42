//! Connections: HTTP/1.1, with bounds on how slowly a request's headers may come and on how long a connection is kept that nobody uses, and an end
//! that lets what was begun be finished.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

// After an error that is not one connection's, for example too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// How long is waited for what clients send.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request's headers, from their first byte.
    pub headers: Duration,
    /// For that byte, from the end of the request before or the beginning of the connection.
    pub idle: Duration,
}

/// Serves a router until `stop`, then lets requests that were begun come to their end, for `farewell` at the most. Connections that try the patience
/// are closed.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, farewell: Duration, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused) {
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                    continue;
                }
            },
        };
        // Answers are written whole: nothing is to be waited for.
        let _ = stream.set_nodelay(true);
        let received = Arc::new(AtomicBool::new(false));
        let mut builder = http1::Builder::new();
        builder.timer(HeadTimer { received: received.clone(), patience: patience.headers }).header_read_timeout(patience.idle);
        let stream = TokioIo::new(Watched { stream, received });
        let connection = graceful.watch(builder.serve_connection(stream, TowerToHyperService::new(router.clone())));
        tokio::spawn(async move {
            // The client went away, was too slow, or sent what is no HTTP; it has been answered where it could be.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        // Readers that never come to their end do not hold up the stop.
        () = tokio::time::sleep(farewell) => {}
    }
}

// Tells the timer that something came.
struct Watched {
    stream: TcpStream,
    received: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.received.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

// hyper asks for one deadline, from when it begins to wait for a request until it has its headers. This makes two of it: once the first byte is
// there, the rest has a time of its own, which is shorter than a connection may be idle.
struct HeadTimer {
    received: Arc<AtomicBool>,
    patience: Duration,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.received.store(false, Ordering::Relaxed);
        let sleep = Box::pin(tokio::time::sleep_until(deadline.into()));
        Box::pin(HeadSleep { sleep, received: self.received.clone(), patience: self.patience, began: false })
    }
}

struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    received: Arc<AtomicBool>,
    patience: Duration,
    began: bool,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.began && self.received.load(Ordering::Relaxed) {
            self.began = true;
            let deadline = tokio::time::Instant::now() + self.patience;
            self.sleep.as_mut().reset(deadline);
        }
        self.sleep.as_mut().poll(context)
    }
}
