//! Tokens: who may join, how often and until when; and who waits for an operator's approval.

use dunlin_model::{NodeId, Timestamp};

use crate::volatile::NodeState;
use crate::{Action, Answer, Change, Cluster, NodeRecord, PendingRecord, Rejection, Step, TokenRecord};

/// How many machines may wait for approval at a time.
const MAX_PENDING: usize = 1_000;

impl Cluster {
    pub(crate) fn create_token(
        &mut self,
        step: &mut Step,
        token: TokenRecord,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        if self.durable.tokens().contains_key(&token.id) {
            return Err(Rejection::TokenTaken(token.id));
        }
        self.change(step, Change::Token(token), now);
        Ok(Answer::TokenCreated)
    }

    /// Makes a node a member. The same key may ask again: the answer may have been lost.
    ///
    /// A name is of one machine while that lives. When its lease is over, another key may have the name with a good
    /// token: the machine was replaced. The record goes on with the new key, so the old one is a stranger from then.
    pub(crate) fn join(
        &mut self,
        step: &mut Step,
        token_id: &str,
        secret_hash: &[u8; 32],
        node: NodeId,
        key_fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let token = self.durable.tokens().get(token_id).ok_or(Rejection::TokenUnknown)?;
        if !is_same_hash(&token.secret_hash, secret_hash) {
            return Err(Rejection::TokenUnknown);
        }
        let member = self.durable.nodes().get(&node);
        let is_again = member.is_some_and(|member| member.key_fingerprint == key_fingerprint);
        if member.is_some_and(|member| member.revoked_keys.contains(&key_fingerprint)) {
            return Err(Rejection::NodeRevoked(node));
        }
        if is_again && token.used_by.contains(&key_fingerprint) {
            return Ok(Answer::Joined);
        }
        let waiting = self.durable.pending().get(&node);
        if waiting.is_some_and(|waiting| waiting.key_fingerprint == key_fingerprint) {
            return Ok(Answer::Pending);
        }
        if token.expires <= now {
            return Err(Rejection::TokenExpired);
        }
        if is_again {
            return Ok(Answer::Joined);
        }
        // A machine that was sent away, or was replaced under its name, does not come again with what it has used.
        if token.uses_left == 0 || token.used_by.contains(&key_fingerprint) {
            return Err(Rejection::TokenUsed);
        }
        if waiting.is_some() || member.is_some_and(|member| member.lost.is_none()) {
            return Err(Rejection::NameTaken(node));
        }
        let mut token = token.clone();
        token.uses_left -= 1;
        token.used_by.push(key_fingerprint);
        let must_wait = token.approval;
        if must_wait && self.durable.pending().len() >= MAX_PENDING {
            return Err(Rejection::TooManyPending { limit: MAX_PENDING });
        }
        self.change(step, Change::Token(token), now);
        if must_wait {
            let pending = PendingRecord { node, key_fingerprint, since: now };
            self.change(step, Change::Pending(pending), now);
            return Ok(Answer::Pending);
        }
        self.admit(step, node, key_fingerprint, now);
        Ok(Answer::Joined)
    }

    /// Lets a machine become a node that waits for it.
    pub(crate) fn approve(
        &mut self,
        step: &mut Step,
        node: &NodeId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let pending = self.durable.pending().get(node).cloned();
        let pending = pending.ok_or_else(|| Rejection::NotPending(node.clone()))?;
        // Who had the name may have come back meanwhile.
        if self.durable.nodes().get(node).is_some_and(|member| member.lost.is_none()) {
            return Err(Rejection::NameTaken(node.clone()));
        }
        self.change(step, Change::PendingDeleted(node.clone()), now);
        // Who had the name may still be connected; it is a stranger now.
        step.actions.push(Action::Expel { node: node.clone() });
        self.admit(step, pending.node, pending.key_fingerprint, now);
        Ok(Answer::Approved)
    }

    /// Makes a machine a node.
    fn admit(&mut self, step: &mut Step, node: NodeId, key_fingerprint: [u8; 32], now: Timestamp) {
        let record = match self.durable.nodes().get(&node) {
            // Still lost until it reports. What was sent to the name stays known, so that generations only grow.
            Some(lost) => {
                self.volatile.compiled.forget_node(&node);
                NodeRecord {
                    key_fingerprint,
                    joined: now,
                    revoked: false,
                    removed: false,
                    upgrade: None,
                    ..lost.clone()
                }
            }
            None => {
                self.volatile.nodes.insert(node.clone(), NodeState::default());
                NodeRecord::joined(node, key_fingerprint, now)
            }
        };
        self.change(step, Change::Node(record), now);
    }
}

/// Compares without telling by its time where the first difference is.
fn is_same_hash(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
