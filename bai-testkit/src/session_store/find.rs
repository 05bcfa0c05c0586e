//! Lists of sessions: conditions, filters, orders and pages.

use std::sync::Arc;

use bai_core::Session;
use bai_core::error::ErrorKind;
use bai_core::port::store::SessionQuery;
use bai_core::query::{Comparison, Expr, Literal, Op, Order, parse_order};
use bai_core::status::{ClusterMode, SessionResult, SessionStatus, SessionType};

use super::{Rows, insert, placed};
use crate::fixture::{at, cluster_session, project_id, session, user, user_id};

/// The names found, in order.
async fn found(store: &dyn Rows, query: &SessionQuery) -> Vec<String> {
    let page = store.find(query).await.unwrap();
    assert!(page.total >= page.items.len() as u64);
    page.items.into_iter().map(|session| session.name).collect()
}

pub async fn find_without_conditions_lists_all_newest_first(store: Arc<dyn Rows>) {
    for (name, created, terminated) in
        [("old", 1, None), ("new", 5, None), ("ended", 2, Some(9)), ("mid", 3, Some(4))]
    {
        let terminated_at = terminated.map(at);
        insert(&*store, Session { created_at: at(created), terminated_at, ..session(name) }).await;
    }
    assert_eq!(found(&*store, &SessionQuery::default()).await, ["ended", "new", "mid", "old"]);
}

pub async fn find_keeps_every_condition(store: Arc<dyn Rows>) {
    let base = insert(&*store, Session { created_at: at(1), ..session("base") }).await;
    let mut other_key = Session { created_at: at(2), ..session("base") };
    other_key.owner.access_key = "AKIAOTHER".into();
    let mut other_domain = Session { created_at: at(3), ..session("domain") };
    other_domain.owner.domain = "other".to_owned();
    let mut other_project = Session { created_at: at(4), ..session("project") };
    other_project.owner.project_id = project_id(2);
    let scheduled = placed(Session { created_at: at(5), ..session("scheduled") }, "i-1");
    for other in [other_key, other_domain, other_project, scheduled] {
        insert(&*store, other).await;
    }
    let query = SessionQuery::default;
    for (query, expected) in [
        (SessionQuery { access_key: Some("AKIAOTHER".into()), ..query() }, vec!["base"]),
        (SessionQuery { domain: Some("other".to_owned()), ..query() }, vec!["domain"]),
        (SessionQuery { project: Some(project_id(2)), ..query() }, vec!["project"]),
        (
            SessionQuery { statuses: vec![SessionStatus::Scheduled, SessionStatus::Running], ..query() },
            vec!["scheduled"],
        ),
        (SessionQuery { name: Some("base".to_owned()), ..query() }, vec!["base", "base"]),
        (SessionQuery { name: Some("BASE".to_owned()), ..query() }, vec![]),
        (
            SessionQuery {
                name: Some("base".to_owned()),
                access_key: Some(base.owner.access_key),
                ..query()
            },
            vec!["base"],
        ),
        (SessionQuery { domain: Some("other".to_owned()), project: Some(project_id(2)), ..query() }, vec![]),
    ] {
        assert_eq!(found(&*store, &query).await, expected, "{query:?}");
    }
}

pub async fn find_pages_and_counts_all(store: Arc<dyn Rows>) {
    for number in 0..7 {
        insert(&*store, Session { created_at: at(number), ..session(&format!("s{number}")) }).await;
    }
    for (offset, limit, expected) in [
        (0, Some(3), vec!["s6", "s5", "s4"]),
        (3, Some(3), vec!["s3", "s2", "s1"]),
        (6, Some(3), vec!["s0"]),
        (7, Some(3), vec![]),
        (5, None, vec!["s1", "s0"]),
        (0, Some(0), vec![]),
        (0, Some(u64::MAX), vec!["s6", "s5", "s4", "s3", "s2", "s1", "s0"]),
        (u64::MAX, Some(1), vec![]),
    ] {
        let page = store.find(&SessionQuery { offset, limit, ..SessionQuery::default() }).await.unwrap();
        let names: Vec<_> = page.items.into_iter().map(|session| session.name).collect();
        assert_eq!(
            (names, page.total),
            (expected.into_iter().map(str::to_owned).collect(), 7),
            "{offset} {limit:?}"
        );
    }
}

pub async fn equal_rows_are_paged_without_overlap(store: Arc<dyn Rows>) {
    for number in 0..9 {
        insert(&*store, session(&format!("s{number}"))).await;
    }
    let mut seen = Vec::new();
    for offset in 0..9 {
        seen.extend(
            found(&*store, &SessionQuery { offset, limit: Some(1), ..SessionQuery::default() }).await,
        );
    }
    seen.sort();
    assert_eq!(seen, (0..9).map(|number| format!("s{number}")).collect::<Vec<_>>());
}

/// Three sessions that differ in every field.
async fn insert_samples(store: &dyn Rows) -> [Session; 3] {
    store.put_user(&user(1)).await.unwrap();
    store.put_user(&user(2)).await.unwrap();
    let mut a = cluster_session("alpha", 1);
    a.created_at = at(10);
    a.status_info = Some("Waiting".to_owned());

    let mut b = cluster_session("beta", 2);
    b.created_at = at(20);
    b.starts_at = Some(at(25));
    b.session_type = SessionType::Batch;
    b.cluster_mode = ClusterMode::MultiNode;
    b.resource_group = "gpu".to_owned();
    b.owner.user_id = user_id(2);
    b.owner.email = "user2@example.com".to_owned();
    b.owner.access_key = "AKIA2".into();
    b.owner.domain = "second".to_owned();
    b.owner.project = "project2".to_owned();
    b.spec.startup_command = Some("make all".to_owned());
    b.kernels[1].image = "r-base:4".to_owned();
    b.place(&["i-1".into(), "i-2".into()], at(26)).unwrap();

    let mut c = placed(cluster_session("gamma", 3), "i-3");
    c.created_at = at(30);
    c.owner.user_id = user_id(3); // there is no such user
    c.result = SessionResult::Failure;
    c.kernels[0].image = "cuda:12".to_owned();
    c.cancel("user-requested", at(40)).unwrap();

    let mut samples = Vec::new();
    for sample in [a, b, c] {
        samples.push(insert(store, sample).await);
    }
    samples.try_into().unwrap()
}

async fn assert_filters(store: &dyn Rows, cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let filter = Some(text.parse().unwrap());
        let query = SessionQuery { filter, order: order("name"), ..SessionQuery::default() };
        let names: String = found(store, &query).await.iter().map(|name| &name[..1]).collect();
        assert_eq!(names, *expected, "{text}");
    }
}

fn order(text: &str) -> Vec<Order> {
    parse_order(text, |_| true).unwrap()
}

pub async fn every_field_can_be_filtered(store: Arc<dyn Rows>) {
    let [a, ..] = insert_samples(&*store).await;
    let by_id = format!(r#"id == "{}""#, a.id.to_string().to_uppercase());
    let cases = [
        (by_id.as_str(), "a"),
        (r#"type == "batch""#, "b"),
        (r#"type in ["INTERACTIVE", "INFERENCE"]"#, "ag"),
        (r#"name != "beta""#, "ag"),
        (r#"name > "alpha" & name <= "beta""#, "b"),
        (r#"domain_name == "second""#, "b"),
        (r#"group_name == "project1""#, "ag"),
        (r#"user_email like "user1@%""#, "ag"),
        (r#"full_name == "User Number 2""#, "b"),
        ("full_name is null", "g"),
        (r#"access_key == "AKIA2""#, "b"),
        (r#"scaling_group == "gpu""#, "b"),
        (r#"cluster_mode == "multi_node""#, "b"),
        ("cluster_size == 2", "b"),
        ("cluster_size >= 2", "bg"),
        ("cluster_size < 2.5", "ab"),
        ("cluster_size == 2.5", ""),
        ("cluster_size != 2.5 & cluster_size > -1.5", "abg"),
        ("cluster_size in [1, 3, 4.5]", "ag"),
        ("cluster_size < 99999999999999999999999999", "abg"),
        ("cluster_size > -99999999999999999999999999", "abg"),
        (r#"status == "SCHEDULED" | status == "cancelled""#, "bg"),
        (r#"status_info == "Waiting""#, "a"),
        (r#"result == "FAILURE""#, "g"),
        (r#"created_at > "2023-11-14T22:13:40Z""#, "g"),
        (r#"created_at >= "2023-11-14T22:13:40Z""#, "bg"),
        (r#"created_at == "2023-11-14T22:13:40.000000100Z""#, ""),
        (r#"created_at < "2023-11-14T22:13:40.000000100Z""#, "ab"),
        ("terminated_at isnot null", "g"),
        (r#"starts_at == "2023-11-15T07:13:45+09:00""#, "b"),
        (r#"scheduled_at contains "22:13:46""#, "b"),
        ("scheduled_at == null", "a"),
        (r#"scheduled_at > "2023-11-14T22:13:40""#, "b"),
        (r#"startup_command contains "ake a""#, "b"),
        (r#"!(name == "alpha" | cluster_size == 3)"#, "b"),
        (r#"name == "alpha" | name == "beta" & cluster_size == 2"#, "ab"),
    ];
    assert_filters(&*store, &cases).await;
}

pub async fn array_fields_match_any_element(store: Arc<dyn Rows>) {
    insert_samples(&*store).await;
    assert_filters(
        &*store,
        &[
            (r#"image == "python:3.11""#, "abg"),
            (r#"image == "r-base:4""#, "b"),
            (r#"image != "python:3.11""#, "bg"),
            (r#"!image != "python:3.11""#, "a"),
            (r#"image like "cuda:%""#, "g"),
            (r#"image in ["cuda:12", "r-base:4"]"#, "bg"),
            ("image in []", ""),
            ("image is null", ""),
            ("image isnot null", "abg"),
            (r#"agent_ids contains "i-""#, "bg"),
            (r#"agent_id == "i-2""#, "b"),
            (r#"agents ilike "I-3""#, "g"),
            (r#"!agents contains "i-""#, "a"),
            (r#"agents > "i-2""#, "g"),
            ("agents isnot null", "abg"),
            ("agents == null", ""),
            ("agents > null", ""),
            ("!agents > null", "a"),
            (r#"!agents in ["i-1", null]"#, "a"),
            (r#"agents in ["i-1", null]"#, "b"),
        ],
    )
    .await;
}

pub async fn absent_values_are_neither_equal_nor_different(store: Arc<dyn Rows>) {
    insert_samples(&*store).await;
    assert_filters(
        &*store,
        &[
            (r#"startup_command == "make all""#, "b"),
            (r#"startup_command != "x""#, "b"),
            (r#"!startup_command == "x""#, "b"),
            (r#"!startup_command like "x""#, "b"),
            (r#"startup_command in ["make all", null]"#, "b"),
            (r#"!startup_command in ["x", null]"#, ""),
            ("!startup_command in []", "abg"),
            ("name > null", ""),
            ("!name > null", ""),
            (r#"name == "alpha" | startup_command == "x""#, "a"),
            (r#"!(name == "beta" & startup_command == "x")"#, "abg"),
            (r#"starts_at != "2023-11-14T22:13:45.0000001Z""#, "b"),
            (r#"!starts_at == "2023-11-14T22:13:45.0000001Z""#, "b"),
        ],
    )
    .await;
}

pub async fn patterns_mean_the_same_everywhere(store: Arc<dyn Rows>) {
    for name in [
        "plain",
        "Upper",
        "100%",
        "100x",
        "a_b",
        "aXb",
        r"back\slash",
        "[x]*?",
        "tab\tline\n",
        "ÜBER ñ",
        "^a$.",
    ] {
        insert(&*store, session(name)).await;
    }
    for (op, pattern, expected) in [
        ("like", "%p%", vec!["Upper", "plain"]),
        ("like", "upper", vec![]),
        ("ilike", "upper", vec!["Upper"]),
        ("ilike", "über Ñ", vec!["ÜBER ñ"]),
        ("like", "über%", vec![]),
        ("like", "_BER%", vec!["ÜBER ñ"]),
        ("like", "100_", vec!["100%", "100x"]),
        ("like", r"100\%", vec!["100%"]),
        ("like", r"a\_b", vec!["a_b"]),
        ("contains", "_b", vec!["aXb", "a_b", "tab\tline\n"]),
        ("contains", "*?", vec!["[x]*?"]),
        ("like", "[x]*?", vec!["[x]*?"]),
        ("ilike", "[X]*?", vec!["[x]*?"]),
        ("like", "[a-z]%", vec![]),
        ("like", "^%.", vec!["^a$."]),
        ("ilike", "^A$.", vec!["^a$."]),
        ("like", ".*", vec![]),
        ("like", "tab%line_", vec!["tab\tline\n"]),
        ("like", r"back\\slash", vec![r"back\slash"]),
        ("like", r"%\", vec![]),
        ("like", "", vec![]),
        (
            "contains",
            "",
            vec![
                "100%",
                "100x",
                "Upper",
                "[x]*?",
                "^a$.",
                "aXb",
                "a_b",
                r"back\slash",
                "plain",
                "tab\tline\n",
                "ÜBER ñ",
            ],
        ),
    ] {
        let filter = Expr::Compare(Comparison {
            field: "name".to_owned(),
            op: Op::ALL.into_iter().find(|known| known.as_str() == op).unwrap(),
            literal: Literal::Text(pattern.to_owned()),
        });
        let query = SessionQuery { filter: Some(filter), order: order("name"), ..SessionQuery::default() };
        assert_eq!(found(&*store, &query).await, expected, "{op} {pattern:?}");
    }
}

pub async fn every_field_can_be_ordered(store: Arc<dyn Rows>) {
    let samples = insert_samples(&*store).await;
    let mut by_id = samples.each_ref().map(|session| (session.id.to_string(), &session.name[..1]));
    by_id.sort();
    let by_id: String = by_id.iter().map(|(_, name)| *name).collect();
    for (text, expected) in [
        ("id", by_id.as_str()),
        ("type,name", "bag"),
        ("-name", "gba"),
        ("image,name", "gab"),
        ("agents,name", "abg"),
        ("-agent_ids,name", "gba"),
        ("-agent_id,name", "gba"),
        ("-domain_name,name", "bag"),
        ("-group_name,name", "bag"),
        ("-user_email,name", "bag"),
        ("full_name", "abg"),
        ("-full_name", "gba"),
        ("access_key,name", "bag"),
        ("-scaling_group,name", "bag"),
        ("cluster_mode,-name", "bga"),
        ("-cluster_size", "gba"),
        ("status", "gab"),
        ("-status_info,name", "gba"),
        ("result,name", "gab"),
        ("created_at", "abg"),
        ("-terminated_at,name", "abg"),
        ("starts_at,-name", "bga"),
        ("scheduled_at", "gba"),
        ("-scheduled_at", "abg"),
    ] {
        let names = found(&*store, &SessionQuery { order: order(text), ..SessionQuery::default() }).await;
        let names: String = names.iter().map(|name| &name[..1]).collect();
        assert_eq!(names, expected, "{text}");
    }
}

pub async fn an_unknown_field_is_invalid(store: Arc<dyn Rows>) {
    let query = SessionQuery::default;
    for query in [
        SessionQuery { filter: Some(r#"secret == "x""#.parse().unwrap()), ..query() },
        SessionQuery {
            filter: Some(r#"name == "x" & (priority == 1 | name == "y")"#.parse().unwrap()),
            ..query()
        },
        SessionQuery { filter: Some(r#"cluster_size == "x""#.parse().unwrap()), ..query() },
        SessionQuery { order: order("doc"), ..query() },
        SessionQuery { order: order("name,startup_command"), ..query() },
    ] {
        assert_eq!(store.find(&query).await.unwrap_err().kind(), ErrorKind::Invalid, "{query:?}");
    }
}

pub async fn a_filter_is_never_run_as_text(store: Arc<dyn Rows>) {
    let hostile = r#"x' OR '1'='1"; DROP TABLE sessions; -- $1 ? %s"#;
    insert(&*store, session("harmless")).await;
    insert(&*store, session(hostile)).await;
    for op in [Op::Eq, Op::Like, Op::Ilike, Op::Contains, Op::In] {
        let text = Literal::Text(hostile.to_owned());
        let literal = if op == Op::In { Literal::List(vec![text]) } else { text };
        let filter = Some(Expr::Compare(Comparison { field: "name".to_owned(), op, literal }));
        assert_eq!(
            found(&*store, &SessionQuery { filter, ..SessionQuery::default() }).await,
            [hostile],
            "{op:?}"
        );
    }
    assert_eq!(
        found(&*store, &SessionQuery { name: Some(hostile.to_owned()), ..SessionQuery::default() }).await,
        [hostile]
    );
    assert_eq!(found(&*store, &SessionQuery::default()).await.len(), 2);
}
