//! The actions of a shard machine, as futures; each ends as [`Done`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use shardmill_checkpoint::{AppState, NewLease};
use shardmill_engine::{BatchResponse, DiscardId, Invocation, LaneId, Now, Page, Position, Shard, Wall};
use tokio::time::Instant;
use tracing::Instrument;

use super::Driver;
use crate::budget::Room;
use crate::destination::DestinationError;
use crate::handler::{HandlerError, InvokeContext};
use crate::keeper::KeeperError;
use crate::notes::{EARLIEST_WINDOW, READ_THROUGH, child_start};
use crate::places::{Place, Reached};
use crate::source::{ShardReader, SourceError};

/// An action that ended.
pub(super) enum Done {
    Opened(Result<Box<dyn ShardReader>, SourceError>),
    /// The room is free again once what the page holds is accounted for.
    Fetched(Box<dyn ShardReader>, Result<Page, SourceError>, Room),
    Granted(LaneId, Place),
    /// An invocation was dropped because nobody waits for it any more.
    Cut,
    Invoked {
        lane: LaneId,
        result: Result<BatchResponse, HandlerError>,
        took: Duration,
    },
    Delivered {
        id: DiscardId,
        result: Result<(), DestinationError>,
    },
    Dropped(DiscardId),
    Checkpointed(Result<(), KeeperError>),
}

impl Driver {
    pub(super) fn open(&self, at: Position) -> BoxFuture<'static, Done> {
        let (cx, shard) = (Arc::clone(&self.cx), self.event.shard.clone());
        async move { Done::Opened(cx.stream.source.open(&shard, &at).await) }.boxed()
    }

    pub(super) fn fetch(&mut self, limit: usize) -> BoxFuture<'static, Done> {
        let mut room = Box::pin(self.share.room(limit, self.machine.record_bytes()));
        let reader = self.reader.take();
        async move {
            let Some(mut reader) = reader else { unreachable!("the machine fetches from an open shard") };
            // Room that waits for its turn would be nobody's, and a turn that waits for room would hold up those who have it.
            reader.take_turn().await;
            let room = if let Some(room) = room.as_mut().now_or_never() {
                room
            } else {
                reader.give_turn_back();
                room.await
            };
            let result = reader.next_page(room.records).await;
            Done::Fetched(reader, result, room)
        }
        .boxed()
    }

    pub(super) fn invoke(
        &self,
        invocation: Invocation,
        place: Option<Place>,
        now: Now,
    ) -> BoxFuture<'static, Done> {
        let Invocation { lane, batch, request_id, attempt, deadline, window } = invocation;
        let started = Instant::now();
        let deadline = started + deadline.since(now.mono);
        let cx = InvokeContext {
            request_id,
            attempt,
            deadline,
            shard: self.event.shard.clone(),
            fencing_token: self.held.fencing_token(),
            cancelled: self.cancelled.child_token(),
            function_arn: Arc::clone(&self.cx.function_arn),
            window,
            event: Arc::clone(&self.event),
            may_start: self.may_start.clone(),
        };
        let span = tracing::debug_span!("invocation", %request_id, attempt, records = batch.len());
        let handler = Arc::clone(&self.cx.handler);
        let (cancelled, places) = (self.cancelled.clone(), self.cx.places.clone());
        async move {
            // Given back when the invocation has ended, however it does.
            let _place = place;
            let call = async {
                match cx.may_start() {
                    true => handler.call(batch, cx).await,
                    false => Err(HandlerError::not_started()),
                }
            };
            let call = AssertUnwindSafe(call).catch_unwind();
            let ended = tokio::select! {
                biased;
                () = cancelled.cancelled() => return Done::Cut,
                ended = tokio::time::timeout_at(deadline, call) => ended,
            };
            let result = match ended {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(HandlerError::function_with_details(
                    "the handler panicked",
                    panic_text("handler", &*panic),
                )),
                Err(_) => Err(HandlerError::function("no answer within the function's timeout")),
            };
            if let Some(change) = places.note(started, reached(&result)) {
                tracing::debug!(?change, "whether anybody reaches the function");
            }
            Done::Invoked { lane, result, took: started.elapsed() }
        }
        .instrument(span)
        .boxed()
    }

    pub(super) fn checkpoint(
        &self,
        upto: Position,
        children: Vec<Shard>,
        (earliest_window, read_through): (Option<Wall>, Option<Wall>),
    ) -> BoxFuture<'static, Done> {
        let permit = self.held.permit();
        let (leases, key) = (self.cx.leases.clone(), self.held.key().clone());
        let position = child_start(self.cx.mapping.starting_position());
        let noted = |name: &str, at: Option<Wall>| at.map(|at| (name.to_owned(), at.as_millis().to_string()));
        let window = noted(EARLIEST_WINDOW, earliest_window);
        // What arrives in a child arrives after everything in its parents.
        let read_through = noted(READ_THROUGH, read_through);
        // Children outlive their parents' leases, and with them the pinned start (I15).
        let inherited = AppState::from_iter(self.inherits.clone().into_iter().chain(read_through.clone()));
        async move {
            if !children.is_empty() {
                // The children's leases exist before the end is stored, so a crash in between forgets none (I9).
                let names = children.iter().map(|child| child.id.clone()).collect();
                let new = children.into_iter().map(|child| NewLease {
                    key: key.sibling(child.id),
                    checkpoint: position.clone(),
                    parents: child.parents,
                    hash_range: child.hash_range,
                    app: inherited.clone(),
                });
                let created = leases.create(new.collect()).await;
                let noted = match created {
                    Ok(_) => leases.set_children(key, names).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = noted {
                    return Done::Checkpointed(Err(error));
                }
            }
            Done::Checkpointed(
                permit.write(upto, AppState::from_iter(window.into_iter().chain(read_through))).await,
            )
        }
        .boxed()
    }
}

/// An error of the function is an answer, too.
const fn reached(result: &Result<BatchResponse, HandlerError>) -> Reached {
    match result {
        Err(HandlerError::NotReached { retry_after: None, .. }) => Reached::No,
        Err(HandlerError::NotReached { retry_after: Some(_), .. } | HandlerError::Cut { .. }) => {
            Reached::Perhaps
        }
        _ => Reached::Yes,
    }
}

pub(super) fn panic_text(what: &str, panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the {what} panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r23_what_asks_to_be_left_alone_is_there_and_an_error_is_an_answer() {
        let missed = |retry_after| Err(HandlerError::NotReached { reason: "refused".into(), retry_after });
        assert_eq!(reached(&missed(None)), Reached::No);
        assert_eq!(reached(&missed(Some(Duration::ZERO))), Reached::Perhaps);
        assert_eq!(reached(&Err(HandlerError::function("it answered 500"))), Reached::Yes);
        assert_eq!(reached(&Ok(BatchResponse::success())), Reached::Yes);
    }
}
