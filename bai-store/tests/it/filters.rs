//! Filters and orders mean the same in SQL as in memory: random ones, over random sessions.

use bai_core::memory::MemoryStore;
use bai_core::memory::store::fields;
use bai_core::port::store::{SessionChange, SessionQuery};
use bai_core::port::{IdentityStore, SessionStore};
use bai_core::query::{Comparison, Expr, Field, FieldKind, Literal, Op, Order};
use bai_core::session::Session;
use bai_core::status::{ClusterMode, SessionResult, SessionStatus, SessionType};
use bai_store::Store;
use bai_testkit::fixture::{at, change, cluster_session, user, user_id};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Few values, so that comparisons hit; with letters, wildcards and what has a meaning in patterns of a database.
const TEXTS: &[&str] = &["", "a", "A", "ab", "a%b", "a_b", "É", "é", "*", "[a]", "(a|b)", r"a\b", "b'; --"];
const PATTERNS: &[&str] =
    &["%", "_", "a%", "%b", "A_B", "é", "%*%", "[%", r"a\%b", r"\", "(%)", "%_%_%", "", "^a$", "?"];
const NUMBERS: &[&str] = &["0", "1", "2", "1.5", "-1", "2.0", "99999999999999999999"];
const TIMES: &[&str] =
    &["2023-11-14T22:13:20Z", "2023-11-14T22:13:21Z", "2023-11-14T22:13:21.0000005Z", "1970-01-01"];

fn any_session() -> impl Strategy<Value = Session> {
    let text = || select(TEXTS);
    let times = (0i64..3, prop::option::of(0i64..3), prop::option::of(0i64..3), prop::option::of(0i64..3));
    let kernels = prop::collection::vec((text(), prop::option::of(text())), 1..4);
    let enums = (select(SessionType::ALL), select(ClusterMode::ALL), select(SessionResult::ALL));
    let optional = (prop::option::of(text()), prop::option::of(text()));
    (prop::array::uniform5(text()), times, kernels, enums, optional, select(SessionStatus::ALL), 1u128..4)
        .prop_map(|(texts, times, kernels, enums, optional, status, owner)| {
            let mut session = cluster_session("", u32::try_from(kernels.len()).unwrap());
            let [name, domain, project, email, group] = texts.map(str::to_owned);
            session.name = format!("{name}{}", session.id); // living names are unique
            session.owner.user_id = user_id(owner);
            session.owner.domain = domain;
            session.owner.project = project;
            session.owner.email = email;
            session.resource_group = group;
            (session.created_at, session.starts_at) = (at(times.0), times.1.map(at));
            session.terminated_at = times.2.map(at);
            if let Some(scheduled) = times.3 {
                session.status_history.insert("SCHEDULED".to_owned(), at(scheduled));
            }
            for (kernel, (image, agent)) in session.kernels.iter_mut().zip(kernels) {
                kernel.image = image.to_owned();
                kernel.agent = agent.map(Into::into);
            }
            (session.session_type, session.cluster_mode, session.result) = enums;
            session.status_info = optional.0.map(str::to_owned);
            session.spec.startup_command = optional.1.map(str::to_owned);
            session.status = status;
            session
        })
}

fn literal_for(field: Field, op: Op) -> BoxedStrategy<Literal> {
    let texts =
        |texts: &'static [&'static str]| select(texts).prop_map(|text| Literal::Text(text.to_owned()));
    let value = match field.kind {
        FieldKind::Text if matches!(op, Op::Like | Op::Ilike | Op::Contains) => {
            return texts(PATTERNS).boxed();
        }
        FieldKind::Text => texts(TEXTS).boxed(),
        FieldKind::Number => {
            select(NUMBERS).prop_map(|number| Literal::Number(number.parse().unwrap())).boxed()
        }
        FieldKind::Bool => any::<bool>().prop_map(Literal::Bool).boxed(),
        FieldKind::Time => texts(TIMES).boxed(),
        FieldKind::Uuid => Just(Literal::Text("00000000-0000-0000-0000-000000000000".to_owned())).boxed(),
        FieldKind::Enum(members) => texts(members).boxed(),
    };
    match op {
        Op::Is | Op::IsNot => Just(Literal::Null).boxed(),
        Op::In => prop::collection::vec(prop_oneof![4 => value, 1 => Just(Literal::Null)], 0..3)
            .prop_map(Literal::List)
            .boxed(),
        _ => prop_oneof![6 => value, 1 => Just(Literal::Null)].boxed(),
    }
}

fn any_filter() -> impl Strategy<Value = Expr> {
    let comparison = (select(fields::NAMES), select(&Op::ALL[..])).prop_flat_map(|(name, op)| {
        let field = fields::session_field(name).unwrap();
        literal_for(field, op)
            .prop_map(move |literal| Expr::Compare(Comparison { field: name.to_owned(), op, literal }))
    });
    let possible = comparison
        .prop_filter("the field has the operator", |expr| expr.clone().typed(fields::session_field).is_ok());
    possible.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
            inner.prop_map(Expr::negated),
        ]
    })
}

fn any_order() -> impl Strategy<Value = Vec<Order>> {
    let known: Vec<_> = fields::NAMES.iter().copied().filter(|name| fields::is_order_field(name)).collect();
    let key = (select(known), any::<bool>())
        .prop_map(|(field, is_descending)| Order { field: field.to_owned(), is_descending });
    prop::collection::vec(key, 0..4)
}

async fn agrees_with_memory(store: Store) {
    let mut runner = TestRunner::deterministic();
    let mut draw = |count: usize| -> Vec<SessionChange> {
        (0..count).map(|_| change(any_session().new_tree(&mut runner).unwrap().current())).collect()
    };
    let memory = MemoryStore::new();
    for number in 1..3 {
        store.put_user(&user(number)).await.unwrap();
        memory.put_user(&user(number)).await.unwrap();
    }
    let sessions = draw(60);
    for results in [store.insert(sessions.clone()).await, memory.insert(sessions).await] {
        assert!(results.unwrap().iter().all(Result::is_ok));
    }

    let queries = (any_filter(), any_order(), 0u64..4, prop::option::of(0u64..40));
    for _ in 0..400 {
        let (filter, order, offset, limit) = queries.new_tree(&mut runner).unwrap().current();
        let query = SessionQuery { filter: Some(filter), order, offset, limit, ..SessionQuery::default() };
        let (ours, expected) = (store.find(&query).await.unwrap(), memory.find(&query).await.unwrap());
        assert_eq!(ours.total, expected.total, "{query:?}");
        let ids = |items: &[Session]| items.iter().map(|session| session.id).collect::<Vec<_>>();
        assert_eq!(ids(&ours.items), ids(&expected.items), "{query:?}");
    }
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sqlite_agrees_with_memory() {
    let (store, cleanup) = crate::sqlite::open().await.unwrap();
    agrees_with_memory(store).await;
    cleanup.await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_agrees_with_memory() {
    let Some((store, cleanup)) = crate::postgres::open().await else { return };
    agrees_with_memory(store).await;
    cleanup.await;
}
