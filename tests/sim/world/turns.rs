//! Turns of a world's loops: each loop is created, turned and created again as the app does.

use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::admit::{Admit, AdmitConfig, PoisonBreaker, PoisonLimit, WaitingPartitions};
use tidewire_engine::derive::{DEDUP_FILTER_BYTES, Derive, DeriveConfig, DerivePorts};
use tidewire_engine::port::{Clock, Log};
use tidewire_engine::record::Millis;
use tidewire_engine::turn::{EngineError, TurnOutcome};
use tidewire_schemas::catalogue::Catalogue;

use super::history::World;
use crate::fake::FakeLog;
use crate::operators::OPERATORS;

/// One crash in this many leaves its machine down.
const DOWN_ONCE_IN: u64 = 4;

/// Most turns that a machine stays down.
const DOWN_TURNS_MAX: u64 = 30;

struct MachineClock(FakeLog);

impl Clock for MachineClock {
    fn now(&self) -> Millis {
        let log_state = self.0.state();
        Millis(log_state.now.0 + log_state.skew)
    }
}

impl World {
    /// A turn of ADMIT, which is created if it does not run.
    pub(crate) fn turn_admit(&mut self, n: usize) -> Result<TurnOutcome, String> {
        if self.loops.admits[n].1.running.is_none() {
            let process = self.loops.begin_process(&self.log);
            let log: Arc<dyn Log> = Arc::new(process.clone());
            let config = AdmitConfig {
                topology: self.topology.clone(),
                source: self.loops.admits[n].0,
                catalogue: Catalogue::builtin(),
                instance: "a0".to_owned(),
                settings_hash: 7,
                registry: None,
                breaker: PoisonBreaker::new(PoisonLimit::OFF),
                waiting: WaitingPartitions::default(),
            };
            self.loops.admits[n].1.log = process.clone();
            match Admit::new(config, &log) {
                Ok(admit) => self.loops.admits[n].1.running = Some(admit),
                Err(error) => return tolerate_restart(&process, &error),
            }
        }
        let of = &mut self.loops.admits[n].1;
        let turned = of.running.as_mut().expect("just made").turn(Duration::ZERO);
        if turned.is_err() {
            of.running = None;
        }
        turned.or_else(|error| tolerate_restart(&of.log, &error))
    }

    /// A turn of a machine's DERIVE, which is created if it does not run and the machine is up.
    pub(crate) fn turn_derive(&mut self, n: usize) -> Result<TurnOutcome, String> {
        if self.loops.derives[n].down > 0 {
            self.loops.derives[n].down -= 1;
            return Ok(TurnOutcome::default());
        }
        if self.loops.derives[n].running.is_none() {
            let log = self.loops.begin_process(&self.log);
            self.loops.derives[n].log = log.clone();
            let config = DeriveConfig {
                topology: self.topology.clone(),
                catalogue: Catalogue::builtin(),
                instance: format!("d{n}"),
                thread: 0,
                build: "sim".to_owned(),
                settings_hash: 7,
                standby: n % 2 == 1,
                dedup_filter_bytes: DEDUP_FILTER_BYTES,
                hash_seed: n as u64,
            };
            let ports = DerivePorts {
                log: Arc::new(log.clone()),
                stores: Arc::new(self.machines[n].of_process(&log)),
                clock: Arc::new(MachineClock(log)),
            };
            match Derive::new(config, ports, OPERATORS) {
                Ok(derive) => self.loops.derives[n].running = Some(derive),
                Err(error) => return self.after(Err(error), n),
            }
        }
        let derive = self.loops.derives[n].running.as_mut().expect("just made");
        let turned = derive.turn(Duration::ZERO);
        self.after(turned, n)
    }

    /// Closes a machine's DERIVE in order.
    pub(crate) fn close_derive(&mut self, n: usize) -> Result<(), String> {
        if let Some(derive) = self.loops.derives[n].running.take() {
            let closed = derive.close();
            self.after(closed.map(|()| TurnOutcome::default()), n)?;
        }
        Ok(())
    }

    /// Handles the result of a turn as the app does: after an error the loop is created again.
    fn after(
        &mut self,
        turned: Result<TurnOutcome, EngineError>,
        n: usize,
    ) -> Result<TurnOutcome, String> {
        let of = &mut self.loops.derives[n];
        let log = of.log.clone();
        let error = match turned {
            Ok(turned) if !log.is_dead() => return Ok(turned),
            // The last result of a crashed process is ignored.
            Ok(_) => None,
            Err(error) => Some(error),
        };
        of.running = None;
        if log.is_dead() {
            let faults = self.log.state().faults;
            let batches =
                if faults { self.random().index(4) } else { self.batches_written_at_crash };
            self.machines[n].crash(batches);
            self.stay_down(n);
        }
        match error {
            Some(error) => tolerate_restart(&log, &error),
            None => Ok(TurnOutcome { restoring: true, ..TurnOutcome::default() }),
        }
    }

    /// Keeps some machines down for so long that others take over their partitions.
    fn stay_down(&mut self, n: usize) {
        if !self.log.state().faults || self.machines.len() == 1 {
            return;
        }
        if self.random().one_in(DOWN_ONCE_IN) {
            let turns = 1 + self.random().below(DOWN_TURNS_MAX);
            self.loops.keep_down(n, turns);
            let mut log_state = self.log.state();
            log_state.expire_dead();
            log_state.count("machines down");
        }
    }
}

/// A loop may crash or ask to be created again; any other error is a failure.
fn tolerate_restart(log: &FakeLog, error: &EngineError) -> Result<TurnOutcome, String> {
    match error {
        EngineError::Fatal { .. } if !log.is_dead() => Err(format!("fatal: {error:?}")),
        // It starts again, so there is something to do.
        _ => Ok(TurnOutcome { restoring: true, ..TurnOutcome::default() }),
    }
}
