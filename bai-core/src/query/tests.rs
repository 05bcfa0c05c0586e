//! The grammar, its traps, and the meaning of every operator.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::error::Result;

/// The structure of an expression, fully parenthesised.
fn shape(expr: &Expr) -> String {
    match expr {
        Expr::And(left, right) => format!("({} & {})", shape(left), shape(right)),
        Expr::Or(left, right) => format!("({} | {})", shape(left), shape(right)),
        Expr::Not(inner) => format!("!{}", shape(inner)),
        Expr::Compare(Comparison { field, op, literal }) => {
            format!("{field}{}{}", op.as_str(), literal_text(literal))
        }
    }
}

fn literal_text(literal: &Literal) -> String {
    match literal {
        Literal::Null => "null".to_owned(),
        Literal::Bool(value) => value.to_string(),
        Literal::Number(number) => number.to_string(),
        Literal::Text(text) => format!("{text:?}"),
        Literal::Time(time) => time.to_rfc3339(),
        Literal::List(items) => format!("[{}]", items.iter().map(literal_text).collect::<Vec<_>>().join(",")),
    }
}

fn parse(text: &str) -> Result<Expr> {
    text.parse()
}

#[test]
fn structure() {
    for (text, expected) in [
        ("a==1", "a==1"),
        ("a==1 & b==2 | c==3", "(a==1 & (b==2 | c==3))"),
        ("a==1 | b==2 & c==3", "(a==1 | (b==2 & c==3))"),
        ("(a==1 & b==2) | c==3", "((a==1 & b==2) | c==3)"),
        ("!a==1 & b==2", "!(a==1 & b==2)"),
        ("!(a==1) & b==2", "!(a==1 & b==2)"),
        ("(!a==1) & b==2", "(!a==1 & b==2)"),
        ("a==1 & !b==2 | c==3", "(a==1 & !(b==2 | c==3))"),
        ("!!a==1", "a==1"),
        ("!!!a==1", "!a==1"),
        ("((a==1))", "a==1"),
        (" a\n==\t1&b==2 ", "(a==1 & b==2)"),
        (
            r#"(name == "a" | name == "b") & type == "interactive""#,
            r#"((name=="a" | name=="b") & type=="interactive")"#,
        ),
        (r#"status in ["RUNNING","ERROR"]"#, r#"statusin["RUNNING","ERROR"]"#),
    ] {
        assert_eq!(shape(&parse(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn operators_and_values() {
    for (text, expected) in [
        ("a != null", "a!=null"),
        ("a>=-1.50", "a>=-1.50"),
        ("a<=+3", "a<=3"),
        ("a>1", "a>1"),
        ("a<1", "a<1"),
        ("a is null", "aisnull"),
        ("a isnot true", "aisnottrue"),
        ("a is false", "aisfalse"),
        ("a in []", "ain[]"),
        ("a in [1, null, true, \"x\"]", "ain[1,null,true,\"x\"]"),
        (r#"a like "%x""#, r#"alike"%x""#),
        (r#"a ilike "%x""#, r#"ailike"%x""#),
        (r#"a contains "x""#, r#"acontains"x""#),
        (r#"a == "q\"q""#, r#"a=="q\"q""#),
        // Nothing but the quote is unescaped.
        (r#"a == "x\ny\\""#, r#"a=="x\\ny\\\\""#),
        (r#"a == "세션 & (x)""#, r#"a=="세션 & (x)""#),
        ("_a9 == 1", "_a9==1"),
    ] {
        assert_eq!(shape(&parse(text).unwrap()), expected, "{text}");
    }
}

#[test]
fn syntax_errors() {
    for text in [
        "",
        " ",
        "a",
        "a ==",
        "== 1",
        "a == 'x'",
        "a == x",
        "a == 1e3",
        "a = 1",
        "a === 1",
        "a == 1 b == 2",
        "a == 1 &",
        "& a == 1",
        "a == 1 && b == 2",
        "not a == 1",
        "a == 1 and b == 2",
        "a == 1 or b == 2",
        "(a == 1",
        "a == 1)",
        "()",
        "a == \"x",
        "a == \"x\\\"",
        "a in [1,]",
        "a in [1",
        "a in [,]",
        "a in 1",
        "a == [1]",
        "a like 1",
        "a is 1",
        "a is \"x\"",
        "9a == 1",
        "a == 1.",
        "a == --1",
        "a == 1.2.3",
        "a == .5",
        "a IN [1]",
        "!",
        "a == 99999999999999999999999999999999999999",
        "a.b == 1",
        "1 == a",
        "a in [[1], 2",
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.to_string().starts_with("Query filter parsing error: "), "{text}: {error}");
    }
    assert_eq!(
        parse("a == 1 and b == 2").unwrap_err().to_string(),
        "Query filter parsing error: unexpected 'a' at position 7, expected `&`, `|` or the end"
    );
}

#[test]
fn hostile_sizes() {
    let chain = |terms: usize| vec!["a==1"; terms].join("&");
    assert!(parse(&chain(Expr::MAX_TERMS)).is_ok());
    assert!(parse(&chain(Expr::MAX_TERMS + 1)).is_err());
    let nested = |depth: usize| format!("{}a==1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(Expr::MAX_DEPTH)).is_ok());
    assert!(parse(&nested(Expr::MAX_DEPTH + 1)).is_err());
    for hostile in ["(", "!", "a in [", "a in [[", "a==1&", "!(", "\"", "\\"] {
        assert!(parse(&hostile.repeat(60_000)).is_err(), "{hostile}");
        assert!(parse(&hostile.repeat(Expr::MAX_LENGTH / hostile.len())).is_err(), "{hostile}");
    }
    // The largest expression can be typed, evaluated, copied and dropped.
    let largest =
        parse(&chain(Expr::MAX_TERMS)).unwrap().typed(|_| Some(Field::one(FieldKind::Number))).unwrap();
    assert!(largest.clone().matches(&Sample(HashMap::from([("a", Value::from(1))]))));
}

struct Sample(HashMap<&'static str, Value<'static>>);

impl Row for Sample {
    fn value(&self, name: &str) -> Value<'_> {
        self.0.get(name).cloned().unwrap_or(Value::Null)
    }
}

const STATUSES: &[&str] = &["PENDING", "RUNNING", "ERROR"];

fn schema(name: &str) -> Option<Field> {
    Some(match name {
        "name" | "nothing" | "scheduled_at" => Field::one(FieldKind::Text),
        "count" | "no_count" => Field::one(FieldKind::Number),
        "is_active" | "unknown_flag" => Field::one(FieldKind::Bool),
        "created_at" => Field::one(FieldKind::Time),
        "id" => Field::one(FieldKind::Uuid),
        "status" => Field::one(FieldKind::Enum(STATUSES)),
        "agent_ids" | "no_agents" => Field::many(FieldKind::Text),
        _ => return None,
    })
}

fn sample() -> Sample {
    Sample(HashMap::from([
        ("name", Value::from("my-test")),
        ("count", Value::from(3)),
        ("is_active", Value::from(true)),
        ("created_at", Value::from(crate::signing::parse_date("2024-02-29T12:00:00Z").unwrap().to_utc())),
        ("id", Value::from("0f9c1a52-6c1e-4f57-9f3c-2f3e9f1c0a11")),
        ("status", Value::from("RUNNING")),
        ("agent_ids", ["i-agent1", "i-agent2"].into_iter().collect()),
        ("no_agents", Value::Many(Vec::new())),
    ]))
}

fn matches(text: &str) -> bool {
    parse(text).unwrap().typed(schema).unwrap_or_else(|error| panic!("{text}: {error}")).matches(&sample())
}

#[test]
fn meaning() {
    for text in [
        r#"name == "my-test""#,
        r#"name ilike "%TEST%""#,
        r#"name like "my_test""#,
        r#"name contains "y-t""#,
        r#"name contains "y_t""#,
        r#"name in ["a", "my-test"]"#,
        r#"name > "my" & name < "mz""#,
        "count == 3.0",
        "count >= 3 & count <= 3 & count > 2.99 & count < 4 & count != 4",
        "is_active is true",
        "is_active == true",
        "is_active isnot false",
        "unknown_flag isnot true",
        r#"created_at > "2024-01-01""#,
        r#"created_at == "2024-02-29T21:00:00+09:00""#,
        r#"created_at < "Fri, 01 Mar 2024 00:00:00 GMT""#,
        r#"id == "0F9C1A526C1E4F579F3C2F3E9F1C0A11""#,
        r#"status == "RUNNING""#,
        r#"status == "running""#,
        r#"status == "Running""#,
        r#"status in ["ERROR", "running"]"#,
        r#"status != "ERROR""#,
        r#"agent_ids contains "i-ag""#,
        r#"agent_ids == "i-agent2""#,
        r#"agent_ids != "i-agent2""#,
        r#"agent_ids in ["i-agent2", "x"]"#,
        "nothing is null",
        "nothing == null",
        "name != null",
        "name isnot null",
        "no_agents isnot null",
        r#"!name == "x" & count == 4"#,
        r#"nothing == "x" | count == 3"#,
        r#"!(no_agents == "x")"#,
    ] {
        assert!(matches(text), "{text}");
    }
    for text in [
        r#"name == "MY-TEST""#,
        r#"name like "%TEST%""#,
        "name in []",
        r#"name in [null, "x"]"#,
        r#"status == "ERROR""#,
        r#"agent_ids == "i-agent3""#,
        r#"no_agents contains "i""#,
        "unknown_flag is true",
        "unknown_flag == false",
        "count > null",
        "no_count > 0",
        // Neither true nor false, and so is the opposite.
        r#"nothing == "x""#,
        r#"nothing != "x""#,
        r#"!nothing == "x""#,
        r#"nothing == "x" & count == 3"#,
        r#"!nothing like "%""#,
        "!no_count in [1]",
    ] {
        assert!(!matches(text), "{text}");
    }
}

#[test]
fn typing_errors() {
    let message = |text: &str| parse(text).unwrap().typed(schema).unwrap_err().to_string();
    assert_eq!(message("x == 1"), "('Unknown/unsupported field name', 'x')");
    assert_eq!(
        message(r#"status == "RUN""#),
        "Query filter parsing error: expected one of PENDING, RUNNING, ERROR"
    );
    for text in [
        r#"count == "3""#,
        "name == 3",
        "name == true",
        "is_active == 1",
        r#"created_at > "yesterday""#,
        "created_at > 5",
        r#"id == "x""#,
        "status == 1",
        r#"status like "R%""#,
        r#"status > "ERROR""#,
        r#"created_at contains "2024""#,
        "is_active > true",
        r#"count in [1, "x"]"#,
        "count == 1 & !(count == 2 | x == 3)",
        "name is true",
    ] {
        assert!(parse(text).unwrap().typed(schema).is_err(), "{text}");
    }
}

#[test]
fn orders() {
    let known = |name: &str| schema(name).is_some() || name == "created_at";
    let parse = |text: &str| parse_order(text, known);
    let keys = |text: &str| -> Vec<_> {
        parse(text).unwrap().into_iter().map(|key| (key.field, key.is_descending)).collect()
    };
    assert_eq!(keys("-created_at"), [("created_at".to_owned(), true)]);
    assert_eq!(
        keys("+name, -id ,status"),
        [("name".into(), false), ("id".into(), true), ("status".into(), false)]
    );
    assert_eq!(keys(""), []);
    assert_eq!(keys("  "), []);
    for text in
        ["name,", ",name", "+", "-", "name id", "name;id", "9", "bogus", "--name", "name desc", "name,,id"]
    {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with("Query ordering parsing error: "), "{text}: {error}");
    }
    assert!(parse(&"name,".repeat(100_000)).is_err());
}

#[test]
fn sorting_puts_absent_values_at_the_great_end() {
    let row = |name: Option<&'static str>, count: i64| {
        Sample(HashMap::from([("name", Value::from(name)), ("count", Value::from(count))]))
    };
    let mut rows = [row(None, 1), row(Some("b"), 2), row(Some("a"), 3), row(Some("b"), 4)];
    let mut sorted = |text: &str| -> Vec<Value<'static>> {
        let order = parse_order(text, |_| true).unwrap();
        rows.sort_by(|a, b| compare(&order, a, b));
        rows.iter().map(|row| row.0["count"].clone()).collect()
    };
    let numbers = |numbers: [i64; 4]| numbers.map(Value::from).to_vec();
    assert_eq!(sorted("name,-count"), numbers([3, 4, 2, 1]));
    assert_eq!(sorted("-name,count"), numbers([1, 2, 4, 3]));
}

fn any_expr() -> impl Strategy<Value = Expr> {
    let literal = prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        any::<i32>().prop_map(|number| Literal::Number(number.into())),
        "[a-z\"&|() ]{0,6}".prop_map(Literal::Text),
    ];
    let leaf = ("x[a-z]{0,3}", literal)
        .prop_map(|(field, literal)| Expr::Compare(Comparison { field, op: Op::Eq, literal }));
    leaf.prop_recursive(6, 40, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
            inner.prop_map(Expr::negated),
        ]
    })
}

/// Text with parentheses wherever the language would bind otherwise.
fn written(expr: &Expr) -> String {
    match expr {
        Expr::And(left, right) => format!("({}) & ({})", written(left), written(right)),
        Expr::Or(left, right) => format!("({}) | ({})", written(left), written(right)),
        Expr::Not(inner) => format!("!({})", written(inner)),
        Expr::Compare(Comparison { field, op, literal }) => {
            let literal = match literal {
                Literal::Text(text) => format!("\"{}\"", text.replace('"', "\\\"")),
                other => literal_text(other),
            };
            format!("{field} {} {literal}", op.as_str())
        }
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC{0,60}") {
        let _ = parse(&text);
        let _ = parse_order(&text, |_| true);
    }

    #[test]
    fn tokens_never_panic(tokens in prop::collection::vec(
        prop::sample::select(vec!["a", "status", "==", "!", "&", "|", "(", ")", "[", "]", ",", "in", "is", "null", "1", "-", "\"x\"", "\"", "\\", "like", " "]), 0..30)) {
        let _ = parse(&tokens.concat()).and_then(|expr| expr.typed(schema)).map(|expr| expr.matches(&sample()));
    }

    #[test]
    fn written_expressions_are_read_back(expr in any_expr()) {
        prop_assert_eq!(parse(&written(&expr)).unwrap(), expr);
    }
}
