use bai_core::session::KernelExit;
use bai_core::slots::Amount;
use bai_testkit::fixture::{self, at, cluster_session};

use super::*;

/// Seconds from [`at`]`(0)` to the next midnight, as the tests count.
fn to_midnight() -> i64 {
    DAY - at(0).timestamp().rem_euclid(DAY)
}

fn placed(kernels: u32, from: i64) -> Session {
    let mut session = cluster_session("s", kernels);
    session.place(&vec!["i-0".into(); kernels as usize], at(from)).unwrap();
    session
}

fn end(session: &mut Session, kernel: usize, second: i64) {
    let exit = KernelExit { code: Some(0), reason: "self-terminated".into(), oom: false };
    session.kernel_ended(session.kernels[kernel].id, &exit, at(second)).unwrap();
}

/// A book that has been read and found empty.
fn histories(sessions: Vec<Session>) -> Histories {
    let histories = Histories::default();
    histories.books.lock().insert("default".into(), Book::default());
    assert!(histories.fill("default", 0, sessions, at(-30 * DAY)));
    histories
}

fn member() -> Holder {
    Holder::Member(fixture::project_id(1), fixture::user_id(1))
}

/// Core seconds by day that are told of a member.
fn told(histories: &Histories, is_new: bool, living: &[Session], now: i64) -> Option<Vec<(i64, Amount)>> {
    let living = || living.iter().cloned().map(Arc::new).collect();
    let interval = TimeDelta::seconds(30);
    let news = histories.news("default", is_new, living, TimeDelta::days(28), interval, at(now));
    let (_, slices) = news.into_iter().find(|(holder, _)| *holder == member())?;
    let day = |slice: &UsageSlice| slice.at.timestamp().div_euclid(DAY) - at(0).timestamp().div_euclid(DAY);
    Some(slices.iter().map(|slice| (day(slice), slice.slot_seconds.get("cpu"))).collect())
}

#[test]
fn each_kernel_counts_from_its_placement_to_its_end() {
    let mut session = placed(2, 10);
    end(&mut session, 1, 110);
    end(&mut session, 0, 310);
    assert!(session.status.is_dead());
    let histories = histories(vec![session]);
    assert_eq!(told(&histories, true, &[], 400), Some(vec![(0, Amount::from(400_u64))]));
    assert_eq!(told(&histories, false, &[], 500), None, "told once");
    assert_eq!(told(&histories, true, &[], 500), Some(vec![(0, Amount::from(400_u64))]), "all for a new one");
}

#[test]
fn usage_is_split_at_midnight() {
    let midnight = to_midnight();
    let mut session = placed(1, midnight - 100);
    end(&mut session, 0, midnight + 40);
    let histories = histories(vec![session]);
    let told = told(&histories, true, &[], midnight + 50).unwrap();
    assert_eq!(told, [(0, Amount::from(100_u64)), (1, Amount::from(40_u64))]);
}

#[test]
fn living_sessions_are_counted_as_they_go_and_once_in_all() {
    let histories = histories(Vec::new());
    let mut session = placed(1, 0);
    assert_eq!(told(&histories, false, &[session.clone()], 100), Some(vec![(0, Amount::from(100_u64))]));
    assert_eq!(told(&histories, false, &[session.clone()], 110), None, "not so soon again");
    assert_eq!(told(&histories, false, &[session.clone()], 150), Some(vec![(0, Amount::from(150_u64))]));
    end(&mut session, 0, 170);
    histories.ended(&Arc::new(session));
    assert_eq!(told(&histories, false, &[], 200), Some(vec![(0, Amount::from(170_u64))]));
}

#[test]
fn who_ends_while_the_records_are_read_is_counted_once() {
    let (mut one, mut two) = (placed(1, 0), placed(1, 0));
    end(&mut one, 0, 100);
    end(&mut two, 0, 50);
    let histories = Histories::default();
    histories.books.lock().insert("default".into(), Book::default());
    // Both are heard of, one is in the records as well, and is heard of once more.
    histories.ended(&Arc::new(one.clone()));
    histories.ended(&Arc::new(two));
    assert_eq!(told(&histories, true, &[], 200), None, "nothing is told before the records are read");
    let mut three = placed(1, 0);
    end(&mut three, 0, 7);
    assert!(histories.fill("default", 0, vec![one, three.clone()], at(-30 * DAY)));
    histories.ended(&Arc::new(three));
    assert_eq!(told(&histories, true, &[], 200), Some(vec![(0, Amount::from(157_u64))]));
    assert!(!histories.fill("default", 8, Vec::new(), at(0)), "the reading for another book");
}

#[test]
fn the_past_is_forgotten_day_by_day() {
    let mut session = placed(1, 0);
    end(&mut session, 0, 100);
    let histories = histories(vec![session]);
    assert_eq!(told(&histories, false, &[], 28 * DAY - 1).map(|days| days.len()), Some(1));
    assert_eq!(told(&histories, false, &[], 30 * DAY), Some(Vec::new()));
    assert_eq!(told(&histories, false, &[], 31 * DAY), None);
}

#[test]
fn who_never_held_anything_has_used_nothing() {
    let mut waiting = cluster_session("s", 1);
    waiting.cancel("user-requested", at(50)).unwrap();
    let histories = histories(vec![waiting]);
    assert_eq!(told(&histories, true, &[], 100), None);
}
