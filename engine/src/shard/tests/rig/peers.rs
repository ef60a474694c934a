//! What the stream, the function, the destination and the store do.

use super::*;

impl Rig {
    #[expect(clippy::too_many_lines, reason = "one arm for each action")]
    pub(in crate::shard::tests) fn carry_out(&mut self, action: ShardAction) {
        match action {
            ShardAction::Open { at } => {
                self.cursor = self.find(&at);
                self.see(Fact::Opened(at.clone()));
                self.trace.push((self.now, Did::Open(at)));
                let n = self.count(0);
                let reply = (self.opens)(n);
                self.later(reply, Due::Open);
            }
            ShardAction::Fetch { limit } => {
                self.see(Fact::Fetching);
                let begins = self.now.max(self.next_read);
                self.next_read = begins + PACE;
                self.trace.push((begins, Did::Fetch(limit)));
                let n = self.count(1);
                let reply = (self.reads)(n).delayed(begins - self.now);
                self.later(reply, |result| Due::Read(limit, result));
            }
            ShardAction::Reserve { lane } => {
                self.trace.push((self.now, Did::Reserve(lane)));
                let n = self.count(4);
                let reply = (self.places)(n);
                self.later(reply, |_| Due::Grant(lane));
            }
            ShardAction::Release { lane } => {
                self.trace.push((self.now, Did::Release(lane)));
                assert!(self.take_place(lane), "a place is given back that was not granted");
            }
            ShardAction::Invoke(invocation) => {
                let has_place = self.take_place(invocation.lane);
                assert!(has_place || self.rule == PlaceRule::Unlimited, "invoked without a place");
                let (lane, request_id) = (invocation.lane, invocation.request_id);
                let records = numbers(&invocation.batch);
                let window = invocation.window.clone();
                self.see(Fact::Invoked { lane, request_id, records: seqs(&invocation.batch), window });
                let nth = self.calls.entry(records.clone()).or_default();
                *nth += 1;
                let window = invocation.window;
                let call = Call { records: records.clone(), nth: *nth, window: window.clone() };
                let did = Did::Invoke { records, attempt: invocation.attempt, id: request_id, lane, window };
                self.trace.push((self.now, did));
                let reply = (self.function)(&call);
                self.later(reply, |outcome| Due::Invoke(lane, outcome));
            }
            ShardAction::Discard { id, failed } => self.discard(id, &failed),
            ShardAction::Checkpoint { upto, children, earliest_window, read_through } => {
                self.see(Fact::Storing(upto.clone()));
                self.trace.push((self.now, Did::Checkpoint(upto.clone(), children)));
                let n = self.count(3);
                let reply = (self.store)(n);
                let upto = Resume { checkpoint: upto, earliest_window, read_through, retention: None };
                self.later(reply, |stored| Due::Store(upto, stored));
            }
            ShardAction::ReportGap(gap) => self.trace.push((self.now, Did::Gap(gap))),
            ShardAction::ListStream => self.trace.push((self.now, Did::List)),
            ShardAction::Exit(exit) => {
                self.see(Fact::Exited(exit));
                self.exited = Some(exit);
                self.trace.push((self.now, Did::Exit(exit)));
            }
        }
    }

    pub(in crate::shard::tests) fn take_place(&mut self, lane: LaneId) -> bool {
        let place = self.granted.iter().position(|granted| *granted == lane);
        place.map(|at| self.granted.remove(at)).is_some()
    }

    pub(in crate::shard::tests) fn discard(&mut self, id: DiscardId, failed: &FailedBatch) {
        let given = Given::from(failed);
        self.see(Fact::Discarding(given.clone()));
        self.trace.push((
            self.now,
            Did::Discard {
                records: numbers(&failed.batch),
                count: failed.approximate_invoke_count,
                condition: failed.condition,
                response: failed.response,
                window: failed.window.clone(),
            },
        ));
        self.discard_ids.push(id);
        let n = self.count(2);
        match &mut self.destination {
            Some(destination) => {
                let reply = destination(n);
                self.later(reply, |taken| Due::Discard(id, given, taken));
            }
            None => self.due.push((self.now, Due::Discard(id, given, true))),
        }
    }

    pub(super) fn answer(&mut self, due: Due) {
        let event = match due {
            Due::Open(true) => ShardEvent::Opened,
            Due::Open(false) => ShardEvent::OpenFailed(FetchFault::Other),
            Due::Read(limit, Ok(())) => self.read(limit),
            Due::Read(_, Err(fault)) => ShardEvent::FetchFailed(fault),
            Due::Grant(lane) => {
                self.granted.push(lane);
                ShardEvent::Granted { lane }
            }
            Due::Invoke(lane, outcome) => {
                self.see(Fact::Ended { lane, outcome: outcome.clone() });
                ShardEvent::Invoked { lane, outcome }
            }
            Due::Discard(id, given, taken) => {
                let drops = self.mapping.on_destination_failure == OnDestinationFailure::Drop;
                if taken || drops {
                    self.see(Fact::Discarded(given));
                }
                match (taken, &self.destination) {
                    (true, Some(_)) => ShardEvent::Delivered(id),
                    (true, None) => ShardEvent::Dropped(id),
                    (false, _) => ShardEvent::DeliverFailed(id),
                }
            }
            Due::Store(upto, true) => {
                self.store_now(upto);
                ShardEvent::Checkpointed
            }
            Due::Store(_, false) => {
                self.see(Fact::StoreFailed);
                ShardEvent::CheckpointFailed
            }
        };
        self.machine.handle_event(self.now(), event);
    }

    pub(in crate::shard::tests) fn store_now(&mut self, upto: Resume) {
        self.see(Fact::Stored(upto.checkpoint.clone()));
        self.stored = upto.checkpoint;
        self.stored_window = upto.earliest_window;
        self.stored_through = upto.read_through;
    }

    pub(in crate::shard::tests) fn read(&mut self, limit: usize) -> ShardEvent {
        let visible = self.stream.iter().take_while(|(at, _)| *at <= self.now).count();
        let end = (self.cursor + limit.min(self.page)).min(visible).max(self.cursor);
        let records: Vec<_> =
            self.stream[self.cursor..end].iter().map(|(_, record)| record.clone()).collect();
        self.cursor = end;
        let ends = self.closes_at.is_some_and(|at| at <= self.now) && end == self.stream.len();
        let page = Page {
            records,
            continuation: None,
            skipped: Vec::new(),
            children: if ends { self.children.clone() } else { Vec::new() },
            end_of_shard: ends,
            millis_behind: (self.behind)(self.now, (visible - end) as u64 * 1000),
            answer: None,
        };
        let read: Vec<_> = page.records.iter().map(|record| record.seq.clone()).collect();
        let taken = intake(page, self.machine.position(), self.keeps);
        let kept: Vec<_> = taken.records().iter().map(|record| record.seq.clone()).collect();
        let filtered = read.into_iter().filter(|seq| kept.binary_search(seq).is_err()).collect();
        self.see(Fact::Read { kept, filtered, ends });
        ShardEvent::Fetched(taken)
    }

    pub(in crate::shard::tests) fn find(&self, at: &Position) -> usize {
        let before = |record: &Record| match at {
            Position::After(seq) => record.seq <= *seq,
            Position::At(seq) => record.seq < *seq,
            _ => false,
        };
        self.stream.iter().take_while(|(_, record)| before(record)).count()
    }

    /// How the current run ended.
    pub(in crate::shard::tests) const fn exit(&self) -> Option<Exit> {
        self.exited
    }
}
