//! What clients make of answers: every one goes before the oracles, then the client goes on.
//!
//! It judges nothing itself. A late answer is still heard: it may make certain what was in doubt.
//! Next to read: `oracles/`.

use crate::history::{CallEnd, Purpose};
use crate::oracles::{answered, buried, claims, denied, list, monotone, overlap, reads};
use crate::world::World;
use galvani_model::version::Kind;
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::{GetDone, PutDone};

impl World {
    /// An answer reaches a client.
    pub(crate) fn client_hears(&mut self, call: usize, message: Message) {
        let numbers = [16, call as u64, u64::from(message.kind())];
        self.trace.note(self.now, &numbers, || {
            let mut text = format!("{message:?}");
            text.truncate(text.floor_char_boundary(220));
            format!("call {call} hears {text}")
        });
        if self.by_script() {
            self.answers.insert(call, message.clone());
        }
        // A client that gave up still learns whether a write is certain: late answers count.
        let late = self.history.calls[call].end.is_some();
        match (self.history.calls[call].purpose, message) {
            (Purpose::Write(write), Message::PutDone(done)) => {
                self.end_call(call, CallEnd::Done);
                self.write_done(call, write, &done, late);
            }
            (Purpose::Write(write), Message::Failed(failed)) => {
                let end = match failed.applied {
                    AppliedOutcome::No => CallEnd::No,
                    AppliedOutcome::Maybe { .. } => CallEnd::Maybe,
                };
                self.count_failure(&failed.failure);
                self.end_call(call, end);
                if let Err(why) = denied::check(self, write) {
                    self.violate("denied_stays_absent", why);
                }
                if let (false, Some(client)) = (late, self.history.calls[call].client)
                    && !self.maybe_retry(client, write)
                {
                    self.after_answer(client);
                }
            }
            (Purpose::Read(read), Message::GetDone(done)) => {
                self.end_call(call, CallEnd::Done);
                self.read_done(call, read, &done, late);
            }
            (_, message) => {
                if let Message::Failed(failed) = &message {
                    self.count_failure(&failed.failure);
                }
                if let Err(why) = list::check(self, &message) {
                    self.violate("invention", why);
                }
                self.end_call(call, CallEnd::Done);
                if let (false, Some(client)) = (late, self.history.calls[call].client) {
                    self.after_answer(client);
                }
            }
        }
    }

    /// A client has waited long enough for a call.
    pub(crate) fn out_of_patience(&mut self, call: usize) {
        if self.history.calls[call].end.is_some() {
            return;
        }
        if let Err(why) = answered::check(self, call) {
            self.violate("answered_in_time", why);
        }
        self.end_call(call, CallEnd::Silence);
        let Some(client) = self.history.calls[call].client else { return };
        let retried = match self.history.calls[call].purpose {
            Purpose::Write(write) => self.maybe_retry(client, write),
            Purpose::Read(_) | Purpose::Other => false,
        };
        if !retried {
            self.after_answer(client);
        }
    }

    fn end_call(&mut self, call: usize, end: CallEnd) {
        let known = &mut self.history.calls[call];
        let is_write = matches!(known.purpose, Purpose::Write(_));
        known.end = Some(end);
        if is_write {
            self.count_end(end);
        }
    }

    fn write_done(&mut self, call: usize, write: usize, done: &PutDone, late: bool) {
        if self.history.writes[write].impossible {
            self.violate("impossible_is_refused", format!("write {write} was stored"));
        }
        if let Err(why) = claims::after_write(self, write, done) {
            self.violate("causality", why);
        }
        if self.history.writes[write].acked_at.is_none() {
            self.history.writes[write].acked_at = Some(self.now);
            self.coverage.add("writes.acked_first", 1);
        }
        if done.siblings > 1 {
            self.coverage.add("siblings.after_write", 1);
        }
        let key = self.history.writes[write].key;
        if let (false, Some(client)) = (late, self.history.calls[call].client) {
            if !self.by_script() && self.dice.clients.chance(400) {
                self.clients[client].keep_context(key, done.context.clone());
            }
            self.after_answer(client);
        }
    }

    fn read_done(&mut self, call: usize, read: usize, done: &GetDone, late: bool) {
        self.history.reads[read].answered = true;
        self.coverage.add("reads.answered", 1);
        if done.siblings.len() > 1 {
            self.coverage.add("siblings.read", 1);
        }
        let stood = self.owners_stood(self.history.reads[read].epoch);
        let after_a_change = stood && self.layouts.have_changed();
        self.coverage.add("reads.after_a_change", u64::from(after_a_change));
        match reads::check(self, read, done) {
            Ok(seen) => {
                if let Err(why) = claims::after_read(self, read, &seen) {
                    self.violate("causality", why);
                }
                if let Err(why) = buried::stays(self, read, &seen) {
                    self.violate("no_resurrection", why);
                }
                if let Err(why) = overlap::check(self, read, &seen) {
                    self.violate("read_your_quorum", why);
                }
                if let Err(why) = monotone::check(self, read, &seen) {
                    self.violate("monotone_reads", why);
                }
            }
            Err((oracle, why)) => self.violate(oracle, why),
        }
        let key = self.history.reads[read].key;
        if let (false, Some(client)) = (late, self.history.calls[call].client) {
            self.clients[client].keep_context(key, done.context.clone());
            if self.history.reads[read].then_write && !self.calm {
                self.coverage.add("merges", 1);
                self.write_with(client, key, Kind::Put, Some(done.context.clone()));
            } else {
                self.after_answer(client);
            }
        }
    }

    fn count_failure(&mut self, failure: &Failure) {
        let name = match failure {
            Failure::QuorumNotMet { .. } => "failed.quorum_not_met",
            Failure::QuorumImpossible { .. } => "failed.quorum_impossible",
            Failure::CopiesImpossible { .. } => "failed.copies_impossible",
            Failure::ReplicasDown { .. } => "failed.replicas_down",
            Failure::UnknownBucket => "failed.unknown_bucket",
            Failure::BucketExists => "failed.bucket_exists",
            Failure::BucketRefused { .. } => "failed.bucket_refused",
            Failure::BucketHome { .. } => "failed.bucket_home",
            Failure::MemberDown { .. } => "failed.member_down",
            Failure::LayoutChanged => "failed.layout_changed",
            Failure::LayoutOutdated { .. } => "failed.layout_outdated",
            Failure::LayoutChanging { .. } => "failed.layout_changing",
            Failure::LayoutRefused { .. } => "failed.layout_refused",
            Failure::JoinerUnfit { .. } => "failed.joiner_unfit",
            Failure::ValueTooLarge { .. } => "failed.value_too_large",
            Failure::EmitsTooLarge { .. } => "failed.emits_too_large",
            Failure::NoSession => "failed.no_session",
            Failure::TooManySessions { .. } => "failed.too_many_sessions",
            Failure::ContextForged => "failed.context_forged",
            Failure::ContextOtherKey => "failed.context_other_key",
            Failure::ContextTooLong => "failed.context_too_long",
            Failure::TooManySiblings { .. } => "failed.too_many_siblings",
            Failure::ClockAhead { .. } => "failed.clock_ahead",
            Failure::RetryTooLate { .. } => "failed.retry_too_late",
            Failure::TtlImpossible { .. } => "failed.ttl_impossible",
            Failure::Overloaded { .. } => "failed.overloaded",
            Failure::RateLimited { .. } => "failed.rate_limited",
            Failure::Coordinator(_) => "failed.coordinator",
            Failure::NoOwnerReachable => "failed.no_owner_reachable",
            Failure::DeadlinePassed => "failed.deadline_passed",
            Failure::Stopping => "failed.stopping",
            Failure::NotPermitted => "failed.not_permitted",
            Failure::FaultsNotAllowed => "failed.faults_not_allowed",
            Failure::Malformed { .. } => "failed.malformed",
        };
        self.coverage.add(name, 1);
    }
}
