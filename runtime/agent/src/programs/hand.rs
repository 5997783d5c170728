//! What the agent's brain becomes another program with.

use std::sync::Arc;

use dunlin_supervisor::{Action, Event, KeptProgram};
use minisign_verify::PublicKey;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::link::Link;
use crate::programs::Programs;
use crate::{Config, Orders};

/// What carries out what the brain wants done about the program.
#[derive(Debug)]
pub(crate) struct ProgramHand {
    programs: Programs,
    /// Whose signatures count.
    keys: Vec<PublicKey>,
    /// Has this process start again.
    start_again: CancellationToken,
}

impl ProgramHand {
    /// Returns that of an agent.
    pub(crate) fn of(config: &Config, orders: &Orders) -> Arc<Self> {
        let (programs, keys) = (config.programs.clone(), config.settings.upgrade.keys());
        Arc::new(Self { programs, keys, start_again: orders.start_again.clone() })
    }

    /// Returns what the brain goes on from; nothing if no program is taken.
    pub(crate) fn kept(&self) -> Option<KeptProgram> {
        (!self.keys.is_empty()).then(|| self.programs.kept())
    }

    /// Notes that the agent is ready, and looks whether it may be what it is.
    pub(crate) fn is_ready(&self) {
        self.programs.is_ready();
        tokio::spawn(self.programs.clone().vouch(self.keys.clone(), self.start_again.clone()));
    }

    /// Does what the brain wants done about the program; all else is the business of others.
    pub(crate) fn act(self: &Arc<Self>, action: Action, link: &Link, driver: &Driver, runtime: &Handle) {
        match action {
            Action::TakeProgram { order } => {
                let (hand, link, driver) = (Arc::clone(self), link.clone(), driver.clone());
                runtime.spawn(async move {
                    let Self { programs, keys, start_again } = &*hand;
                    if let Some(event) = programs.take(*order, keys, &link, start_again).await {
                        driver.tell(event);
                    }
                });
            }
            Action::KeepTried { number, failed } => self.programs.keep_tried(number, failed),
            Action::ReturnProgram { number, reason } => {
                if self.programs.back(reason) {
                    self.start_again.cancel();
                } else {
                    let reason = "it could not be kept on disk".to_owned();
                    driver.tell(Event::NotTaken { number, reason, again: true });
                }
            }
            _ => {}
        }
    }
}
