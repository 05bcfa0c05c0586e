//! A network that loses, delays and repeats messages, and parts of which are cut off or stand still.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bai_core::error::code;
use bai_core::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Chance, Trace};

/// How long a connection takes to notice that nobody answers.
const SILENCE: Duration = Duration::from_mins(1);

/// How bad it is, in cases of a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Messages and replies that are lost.
    pub loss: u32,
    /// Messages that arrive a second time.
    pub repeats: u32,
    /// Messages that take seconds.
    pub slow: u32,
    /// Calls to the store that fail, before or after their work.
    pub store: u32,
    /// Events that no subscriber hears of.
    pub events: u32,
}

/// What lies between all parts of the cluster.
#[derive(Debug)]
pub struct Network {
    chance: Chance,
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    /// Ways on which nothing arrives; `*` is anybody.
    cuts: BTreeSet<(String, String)>,
    /// Who stands still, and until when.
    stalls: BTreeMap<String, Instant>,
}

/// What happens to one message.
#[derive(Debug)]
struct Fate {
    there: Duration,
    back: Duration,
    arrives: bool,
    answered: bool,
    again: Option<Duration>,
    /// Whether the sender is told at once that it did not arrive.
    refused: bool,
}

impl Network {
    /// A network in calm weather.
    pub fn new(chance: Chance, trace: Trace) -> Arc<Self> {
        Arc::new(Self { chance, trace, state: Mutex::default() })
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.trace.say(format_args!("network {weather:?}"));
        self.state.lock().weather = weather;
    }

    /// How bad it is now.
    pub fn weather(&self) -> Weather {
        self.state.lock().weather
    }

    /// Everything works from now on.
    pub fn calm(&self) {
        self.trace.say("network calm");
        *self.state.lock() = State::default();
    }

    /// Cuts the line between two, or with `*` between one and everybody.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_way(one, other);
        self.cut_way(other, one);
    }

    /// Mends what [`Network::cut`] has cut.
    pub fn mend(&self, one: &str, other: &str) {
        self.mend_way(one, other);
        self.mend_way(other, one);
    }

    /// Nothing that `from` says arrives at `to`, or with `*` at anybody; what `to` says does arrive.
    pub fn cut_way(&self, from: &str, to: &str) {
        self.trace.say(format_args!("cut {from} -> {to}"));
        self.state.lock().cuts.insert((from.to_owned(), to.to_owned()));
    }

    /// Mends what [`Network::cut_way`] has cut.
    pub fn mend_way(&self, from: &str, to: &str) {
        self.trace.say(format_args!("mend {from} -> {to}"));
        self.state.lock().cuts.remove(&(from.to_owned(), to.to_owned()));
    }

    /// Nothing gets out of `name` or into it for a while, as when a process is stopped: it goes on later as if nothing had been.
    pub fn stall(&self, name: &str, time: Duration) {
        self.trace.say(format_args!("stall {name} {time:?}"));
        self.state.lock().stalls.insert(name.to_owned(), Instant::now() + time);
    }

    /// Whether nothing that `from` says arrives at `to`.
    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        let cuts = &self.state.lock().cuts;
        let has = |a: &str, b: &str| !cuts.is_empty() && cuts.contains(&(a.to_owned(), b.to_owned()));
        has(from, to) || has(from, "*") || has("*", to)
    }

    /// Waits while `name` stands still.
    pub async fn awake(&self, name: &str) {
        while let Some(until) = self.stalled_until(name) {
            sleep_until(until).await;
        }
    }

    fn stalled_until(&self, name: &str) -> Option<Instant> {
        let now = Instant::now();
        self.state.lock().stalls.get(name).copied().filter(|until| *until > now)
    }

    fn fate(&self) -> Fate {
        let weather = self.weather();
        let chance = &self.chance;
        let delay = || {
            if chance.permille(weather.slow) { chance.millis(100, 20_000) } else { chance.millis(0, 3) }
        };
        Fate {
            there: delay(),
            back: delay(),
            arrives: !chance.permille(weather.loss),
            answered: !chance.permille(weather.loss),
            again: chance.permille(weather.repeats).then(|| chance.millis(0, 40_000)),
            refused: chance.permille(500),
        }
    }

    /// Carries a message and its answer. What is under way arrives even when the sender no longer waits.
    ///
    /// # Errors
    /// Those of the receiver; `Unavailable` ([`code::AGENT_UNREACHABLE`]) at once or after a minute when either is lost.
    pub async fn carry<T, F>(
        self: &Arc<Self>,
        from: &str,
        to: &str,
        deliver: impl Fn() -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.awake(from).await;
        let fate = self.fate();
        if fate.refused && (!fate.arrives || self.is_cut(from, to)) {
            sleep(fate.there).await;
            return Err(unreachable());
        }
        let (reply, answer) = oneshot::channel();
        let (network, names) = (self.clone(), (from.to_owned(), to.to_owned()));
        tokio::spawn(async move {
            let (from, to) = (names.0.as_str(), names.1.as_str());
            sleep(fate.there).await;
            network.awake(to).await;
            if !fate.arrives || network.is_cut(from, to) {
                return;
            }
            let result = deliver().await;
            network.awake(to).await;
            sleep(fate.back).await;
            if fate.answered && !network.is_cut(to, from) {
                _ = reply.send(result); // the sender may have gone away
            }
            if let Some(later) = fate.again {
                sleep(later).await;
                network.awake(to).await;
                network.trace.say(format_args!("repeated {from} {to}"));
                _ = deliver().await;
            }
        });
        let Ok(result) = answer.await else {
            sleep(SILENCE).await;
            return Err(unreachable());
        };
        self.awake(from).await;
        result
    }

    /// Calls a service that `from` has a connection to: it works, or fails at once before or after its work.
    ///
    /// # Errors
    /// Those of the call; `Unavailable`.
    pub async fn reach<T, F>(
        self: &Arc<Self>,
        from: &str,
        to: &str,
        call: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        self.awake(from).await;
        let fails = self.weather().store;
        let (before, after) = (self.chance.permille(fails), self.chance.permille(fails));
        let (there, back) = (self.chance.millis(0, 2), self.chance.millis(0, 2));
        if before || self.is_cut(from, to) {
            sleep(there).await;
            return Err(away(to));
        }
        let (reply, answer) = oneshot::channel();
        tokio::spawn(async move {
            sleep(there).await;
            _ = reply.send(call().await); // the caller may have gone away
        });
        let result = answer.await.unwrap_or_else(|_| Err(away(to)));
        sleep(back).await;
        self.awake(from).await;
        if after || self.is_cut(to, from) { Err(away(to)) } else { result }
    }

    /// Whether an event is lost.
    pub fn loses_event(&self) -> bool {
        self.chance.permille(self.weather().events)
    }
}

fn unreachable() -> Error {
    Error::of(code::AGENT_UNREACHABLE, "no answer")
}

fn away(service: &str) -> Error {
    Error::of(code::UNAVAILABLE, "the service is away").with("service", service)
}
