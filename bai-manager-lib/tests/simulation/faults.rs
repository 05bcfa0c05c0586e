//! What goes wrong meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bai_testkit::simulation::{Crash, Node, NodeOptions};
use chrono::TimeDelta;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;

/// What a manager that has just died has said arrives within this time.
const LATE: Duration = Duration::from_millis(100);

/// Breaks things until the time of trouble is over, and mends everything then.
pub(crate) async fn run(cluster: &Arc<Cluster>) {
    let end = Instant::now() + cluster.scenario.trouble;
    cluster.network.set_weather(cluster.scenario.weather);
    let mut faults = JoinSet::new();
    while Instant::now() < end {
        sleep(cluster.chance.millis(100, cluster.scenario.fault_pause)).await;
        faults.spawn(fault(cluster.clone()));
    }
    faults.shutdown().await;
    mend(cluster).await;
}

async fn mend(cluster: &Arc<Cluster>) {
    cluster.network.calm();
    for clock in cluster.clocks.values() {
        clock.set(TimeDelta::zero());
    }
    sleep(LATE).await;
    let sound = NodeOptions { failures: 0, stuck: 0, deaths: 0, ..cluster.scenario.kernels };
    for node in cluster.nodes.values() {
        node.behave(sound);
        if !node.is_up() {
            node.start();
        }
    }
    for name in cluster.names() {
        cluster.start(&name).await;
    }
    let nodes: Vec<_> = cluster.nodes.keys().cloned().collect();
    let Some(seat) = cluster.any() else { return };
    seat.manager.agents().set_schedulable(&nodes, true).await.unwrap();
}

/// One fault and its repair.
async fn fault(cluster: Arc<Cluster>) {
    let chance = &cluster.chance;
    let Some(manager) = chance.pick(&cluster.names()).cloned() else { return };
    let nodes: Vec<_> = cluster.nodes.values().cloned().collect();
    let Some(node) = chance.pick(&nodes).cloned() else { return };
    match chance.below(19) {
        0 | 1 => {
            cluster.kill(&manager);
            sleep(chance.millis(100, 30_000)).await;
            cluster.start(&manager).await;
        }
        2 => {
            cluster.stop(&manager).await;
            sleep(chance.millis(0, 5_000)).await;
            cluster.start(&manager).await;
        }
        3 => cluster.network.stall(&manager, chance.millis(500, 45_000)),
        4 => cut(&cluster, &manager, "store", 40_000).await,
        5 => cut(&cluster, &manager, "lease", 40_000).await,
        6 => cut(&cluster, &manager, "events", 60_000).await,
        7 => cut(&cluster, &manager, node.id().as_str(), 120_000).await,
        8 => cut(&cluster, node.id().as_str(), "*", 150_000).await,
        9 => cluster.network.stall(node.id().as_str(), chance.millis(500, 90_000)),
        10 | 11 => crash(&cluster, &node, Crash::Process).await,
        12 => crash(&cluster, &node, Crash::Host).await,
        13 => crash(&cluster, &node, Crash::Disk).await,
        14 => outage(&cluster).await,
        15 => cut_way(&cluster, &manager, node.id().as_str()).await,
        16 => cut_way(&cluster, node.id().as_str(), &manager).await,
        17 => wrong_clock(&cluster, &manager).await,
        _ => close(&cluster, &node).await,
    }
}

async fn cut(cluster: &Cluster, one: &str, other: &str, most: u64) {
    cluster.network.cut(one, other);
    sleep(cluster.chance.millis(500, most)).await;
    cluster.network.mend(one, other);
}

async fn cut_way(cluster: &Cluster, from: &str, to: &str) {
    cluster.network.cut_way(from, to);
    sleep(cluster.chance.millis(500, 120_000)).await;
    cluster.network.mend_way(from, to);
}

/// The clock of a manager's host is wrong for a while, by up to half an hour.
async fn wrong_clock(cluster: &Cluster, manager: &str) {
    let error = TimeDelta::from_std(cluster.chance.millis(1_000, 1_800_000)).unwrap();
    let error = if cluster.chance.permille(500) { error } else { -error };
    cluster.trace.say(format_args!("clock of {manager} wrong by {error}"));
    cluster.clocks[manager].set(error);
    sleep(cluster.chance.millis(1_000, 120_000)).await;
    cluster.trace.say(format_args!("clock of {manager} right"));
    cluster.clocks[manager].set(TimeDelta::zero());
}

/// Nobody reaches the store.
async fn outage(cluster: &Cluster) {
    cluster.network.cut("store", "*");
    sleep(cluster.chance.millis(1_000, 70_000)).await;
    cluster.network.mend("store", "*");
}

async fn crash(cluster: &Cluster, node: &Arc<Node>, crash: Crash) {
    if !node.is_up() {
        return;
    }
    node.crash(crash);
    sleep(cluster.chance.millis(200, 120_000)).await;
    if !node.is_up() {
        node.start();
    }
}

/// Nothing more is to be placed on an agent for a while.
async fn close(cluster: &Cluster, node: &Node) {
    for open in [false, true] {
        let Some(seat) = cluster.any() else { return };
        cluster.trace.say(format_args!("{} schedulable: {open}", node.id()));
        let ids = [node.id().clone()];
        let done = seat.life.within(seat.manager.agents().set_schedulable(&ids, open)).await;
        drop(seat); // a manager that is killed meanwhile is gone
        if let Some(Err(error)) = done {
            cluster.trace.say(format_args!("{} schedulable: {open} is refused: {error}", node.id()));
        }
        sleep(cluster.chance.millis(1_000, 60_000)).await;
    }
}
