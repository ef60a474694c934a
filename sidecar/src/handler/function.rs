//! Any of the handlers.

use shardmill::{Batch, BatchResponse, CancellationToken, Handler, HandlerError, InvokeContext, Places};
use tokio::time::Instant;

use super::{CommandHandler, ProbeError, Readiness, StdoutHandler, UrlHandler};

/// What `Function` names.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FunctionHandler {
    /// `Function.Url`.
    Url(UrlHandler),
    /// `Function.Command`.
    Command(CommandHandler),
    /// `Function.Stdout`.
    Stdout(StdoutHandler),
}

impl FunctionHandler {
    /// Asks whether the function looks callable, without calling it.
    ///
    /// # Errors
    /// [`ProbeError`] says what is missing.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        match self {
            Self::Url(handler) => handler.probe().await,
            Self::Command(handler) => handler.probe().await,
            Self::Stdout(handler) => handler.probe().await,
        }
    }

    /// Asks as `check --online` does, and returns what was found: a program is started up to its first `/next` and
    /// ended.
    ///
    /// # Errors
    /// [`ProbeError`] says what is missing.
    pub async fn try_out(&self) -> Result<&'static str, ProbeError> {
        self.probe().await?;
        Ok(match self {
            Self::Url(_) => "takes connections; it is not called",
            Self::Command(handler) => {
                handler.try_start().await?;
                "started and asked for its first invocation"
            }
            Self::Stdout(_) => "is this program's standard output",
        })
    }

    /// Whether the function can be started (`Command`), or its lines be written (`Stdout`).
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match self {
            Self::Command(handler) => handler.readiness().borrow().clone(),
            Self::Stdout(handler) => handler.readiness().borrow().clone(),
            Self::Url(_) => Readiness::Ready,
        }
    }

    /// Passes on the token that is cancelled when the sidecar is to stop; see [`CommandHandler::stop_with`].
    pub fn stop_with(&self, stop: &CancellationToken) {
        if let Self::Command(handler) = self {
            handler.stop_with(stop);
        }
    }

    /// Cancelled when nothing can ever be handed over again, which ends the run: the program that read standard output
    /// has ended (`Stdout`).
    #[must_use]
    pub const fn closed(&self) -> Option<&CancellationToken> {
        match self {
            Self::Stdout(handler) => Some(handler.closed()),
            Self::Url(_) | Self::Command(_) => None,
        }
    }

    /// Stops what the handler started; see [`CommandHandler::shutdown`].
    pub async fn shutdown(&self, deadline: Instant) {
        if let Self::Command(handler) = self {
            handler.shutdown(deadline).await;
        }
    }
}

impl Handler for FunctionHandler {
    async fn handle(&self, batch: Batch, cx: InvokeContext) -> Result<BatchResponse, HandlerError> {
        match self {
            Self::Url(handler) => handler.handle(batch, cx).await,
            Self::Command(handler) => handler.handle(batch, cx).await,
            Self::Stdout(handler) => handler.handle(batch, cx).await,
        }
    }

    fn places(&self) -> Places {
        match self {
            Self::Url(handler) => handler.places(),
            Self::Command(handler) => handler.places(),
            Self::Stdout(handler) => handler.places(),
        }
    }
}
