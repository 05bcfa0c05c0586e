use bai_testkit::fixture::{agent, at, slots};

use super::*;

const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Debug)]
struct Nobody;

#[async_trait::async_trait]
impl AgentDialer for Nobody {
    async fn dial(&self, _: &Agent) -> Result<Arc<dyn AgentApi>> {
        Err(Error::of(code::AGENT_UNREACHABLE, "nobody"))
    }
}

/// The row of the agent as some manager has written it.
fn row(seconds: i64) -> Agent {
    Agent { last_seen: at(seconds), ..agent("i-1", slots(4, 1 << 30)) }
}

/// A table that has known the agent since second 0, when another manager heard it.
fn table() -> AgentTable {
    let table = AgentTable::new(Arc::new(Nobody), at(0));
    table.load(vec![row(0)], at(0));
    table
}

/// One second passes after another, until the clock of this manager shows `now`.
async fn pass(table: &AgentTable, now: std::ops::RangeInclusive<i64>) -> usize {
    let mut lost = 0;
    for now in now {
        tokio::time::advance(Duration::from_secs(1)).await;
        lost += table.lose_silent(PATIENCE, at(now)).len();
    }
    lost
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_hears_is_lost() {
    let table = table();
    table.load(vec![row(0)], at(5));
    assert_eq!(pass(&table, 1..=40).await, 0);
    assert_eq!(pass(&table, 41..=42).await, 1);
    assert_eq!(table.lost_since(&"i-1".into()), Some(at(41)));
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_own_clock_costs_no_agent() {
    let table = table();
    assert_eq!(pass(&table, 1..=30).await, 0);
    assert_eq!(pass(&table, 3_600..=3_640).await, 0, "an hour forward");
    assert_eq!(pass(&table, 1_000..=1_040).await, 0, "and back");
    assert_eq!(pass(&table, 1_041..=1_042).await, 1, "silence counts from the jump");
}

#[tokio::test(start_paused = true)]
async fn a_jump_gives_lost_agents_their_grace_anew() {
    let table = table();
    assert_eq!(pass(&table, 1..=41).await, 1);
    assert_eq!(pass(&table, 3_600..=3_600).await, 0);
    assert_eq!(table.lost_since(&"i-1".into()), Some(at(3_600)));
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_another_manager_may_be_ahead_and_be_put_right() {
    let table = table();
    for now in (5..=95).step_by(10) {
        table.load(vec![row(now + 3_600)], at(now));
        assert_eq!(pass(&table, now - 4..=now + 5).await, 0);
    }
    for now in (105..=205).step_by(10) {
        table.load(vec![row(now)], at(now));
        assert_eq!(pass(&table, now - 4..=now + 5).await, 0);
    }
    assert_eq!(pass(&table, 211..=246).await, 1, "once nobody hears it any more");
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_another_manager_may_be_behind() {
    let table = table();
    for now in (5..=205).step_by(10) {
        table.load(vec![row(now - 3_600)], at(now));
        assert_eq!(pass(&table, now - 4..=now + 5).await, 0);
    }
    for now in (215..=245).step_by(10) {
        table.load(vec![row(205 - 3_600)], at(now));
        pass(&table, now - 4..=now + 5).await;
    }
    assert!(table.lost_since(&"i-1".into()).is_some(), "an old row is no news");
}

fn report(incarnation: u64, seq: u64) -> AgentReport {
    let row = row(0);
    AgentReport {
        agent: row.id,
        incarnation,
        seq,
        addr: row.addr,
        public_host: row.public_host,
        region: row.region,
        resource_group: row.resource_group,
        capacity: row.capacity,
        slot_types: row.slot_types,
        architecture: row.architecture,
        version: row.version,
        compute_plugins: row.compute_plugins,
        live_stat: row.live_stat,
        isolation_gaps: row.isolation_gaps,
        images: None,
        kernels: Vec::new(),
        leaving: false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_report_of_an_earlier_run_says_nothing() {
    let table = table();
    assert!(table.accept(&report(5, 1), at(1)).is_some());
    assert!(table.accept(&report(6, 1), at(2)).is_some_and(|taken| taken.restarted));
    assert!(table.accept(&report(5, 9), at(61)).is_none());
    assert!(table.accept(&report(6, 2), at(61)).is_some());
    assert!(table.accept(&report(5, 10), at(120)).is_none());
    assert!(table.accept(&report(5, 11), at(121)).is_some(), "the clock of the agent has gone back");
}
