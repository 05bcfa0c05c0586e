//! Weights of owners in the fair share.

use bai_core::UserId;
use bai_scheduler::{Holder, Owner};
use serde_json::{Map, Value};

use super::limits::Rows;

/// The weight of an owner of whom nothing is said, in thousandths.
pub(super) const EVEN: u32 = 1_000;
/// The largest weight: a million.
const MOST: f64 = 1e9;

/// The owners on the levels of the fair share.
pub(super) fn weighed(owner: &Owner) -> [Holder; 3] {
    [
        Holder::Domain(owner.domain.clone()),
        Holder::Project(owner.project),
        Holder::Member(owner.project, owner.user),
    ]
}

/// The weight that is given to an owner, in thousandths: by `domain/<name>`, `project/<id or name>` or `user/<id or email>`.
pub(super) fn weight(given: &Map<String, Value>, holder: &Holder, rows: &Rows<'_>) -> u32 {
    if given.is_empty() {
        return EVEN;
    }
    let (level, names) = match holder {
        Holder::Domain(name) => ("domain", [Some(name.clone()), None]),
        Holder::Project(id) => {
            ("project", [Some(id.to_string()), rows.project(*id).map(|row| row.name.clone())])
        }
        Holder::Member(_, user) => ("user", [Some(user.to_string()), email(rows, *user)]),
        Holder::Keypair(_) | Holder::User(_) => return EVEN,
    };
    let mut found = names.into_iter().flatten().filter_map(|name| given.get(&format!("{level}/{name}")));
    found.next().and_then(thousandths).unwrap_or(EVEN)
}

fn email(rows: &Rows<'_>, user: UserId) -> Option<String> {
    rows.user(user).map(|row| row.email.clone())
}

/// A positive number in thousandths.
pub(super) fn thousandths(value: &Value) -> Option<u32> {
    let weight = value.as_f64().filter(|weight| *weight > 0.0)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the most")]
    Some((weight * 1e3).round().clamp(1.0, MOST) as u32)
}

#[cfg(test)]
mod tests {
    use bai_core::port::store::Directory;
    use bai_testkit::fixture::{project, project_id, user, user_id};
    use serde_json::json;

    use super::*;

    #[test]
    fn owners_are_found_by_name_and_id() {
        let directory = Directory {
            projects: vec![(project(1), Vec::new()), (project(2), Vec::new())],
            users: vec![user(1)],
            ..Directory::default()
        };
        let rows = Rows::of(&directory);
        let by_id = format!("project/{}", project_id(2));
        let given = json!({
            "domain/research": 2, "project/project1": 0.5, by_id: 3, "user/user1@example.com": 1e30,
            "domain/negative": -1, "domain/text": "7",
        });
        let domain = |name: &str| Holder::Domain(name.into());
        for (holder, expected) in [
            (domain("research"), 2_000),
            (domain("other"), EVEN),
            (domain("negative"), EVEN),
            (domain("text"), EVEN),
            (Holder::Project(project_id(1)), 500),
            (Holder::Project(project_id(2)), 3_000),
            (Holder::Member(project_id(1), user_id(1)), 1_000_000_000),
            (Holder::User(user_id(1)), EVEN),
        ] {
            assert_eq!(weight(given.as_object().unwrap(), &holder, &rows), expected, "{holder:?}");
        }
    }
}
