//! How long new connections take, told to the call that needed one.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// How long the connection took that this task's call had to wait for.
    pub(super) static CONNECTED: Cell<Option<Duration>>;
}

/// Puts a stop-watch around a connector.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimedLayer;

impl<S> Layer<S> for TimedLayer {
    type Service = Timed<S>;

    fn layer(&self, connector: S) -> Timed<S> {
        Timed(connector)
    }
}

/// A connector with a stop-watch.
#[derive(Clone, Debug)]
pub(super) struct Timed<S>(S);

impl<S, R> Service<R> for Timed<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        Box::pin(async move {
            let began = tokio::time::Instant::now();
            let connected = connecting.await;
            // A connection that somebody else waits for, or nobody, is told to nobody.
            let _ = CONNECTED.try_with(|took| took.set(Some(began.elapsed())));
            connected
        })
    }
}
