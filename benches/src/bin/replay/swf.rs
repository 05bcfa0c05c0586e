//! Traces in the Standard Workload Format, version 2.2: comments that start with a semicolon, some of them `; Name: value`, and a line
//! of 18 numbers per job, −1 for what is not known.
//!
//! Read are: submit time (2), run time (4), processors allocated (5) and asked for (8), time asked for (9), user (12) and group
//! (13). Times are in seconds and may have a fraction. What a job has actually used of its memory is not what it was given, and most
//! traces lack what it asked for, so processors are the only slot.

use std::collections::BTreeMap;

use bai_core::{Error, ErrorKind};

use crate::workload::{Job, Workload};

/// Cores of an agent where the trace does not tell how many nodes the processors were in.
const CORES: u64 = 16;
const FIELDS: usize = 18;

/// Reads a trace. Jobs that never ran, and those that are bigger than the machine, are left out. A job whose processors do not
/// fit an agent becomes one kernel per full agent and one for the rest.
///
/// # Errors
/// `Invalid` for a line that is not in the format, or a trace without a job.
pub(crate) fn parse(text: &str) -> Result<Workload, Error> {
    let mut header = BTreeMap::new();
    let mut records = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        match line.trim().strip_prefix(';') {
            Some(comment) => header.extend(comment.split_once(':').and_then(entry)),
            None if line.trim().is_empty() => {}
            None => {
                let fields = fields(line).ok_or_else(|| invalid(&format!("line {number}: {line}")))?;
                records.extend(record(&fields));
            }
        }
    }
    let most = records.iter().map(|record| record.processors).max();
    let most = most.ok_or_else(|| invalid("no job has run"))?;
    let processors = header.get("maxprocs").or(header.get("maxnodes")).copied().unwrap_or(most);
    let cores = match (header.get("maxprocs"), header.get("maxnodes")) {
        (Some(processors), Some(nodes)) => processors.div_ceil(*nodes),
        _ => CORES,
    };
    records.retain(|record| record.processors <= processors);
    records.sort_by_key(|record| record.submit);
    let agents = split(processors, cores);
    let mut jobs: Vec<Job> = jobs(&records, cores);
    let first = jobs.first().map_or(0, |job| job.submit);
    for job in &mut jobs {
        job.submit -= first;
    }
    Ok(Workload { agents, jobs })
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("not a workload trace: {what}"))
}

/// A comment that states a number that is not zero.
fn entry((name, value): (&str, &str)) -> Option<(String, u64)> {
    let number = value.split_whitespace().next()?.parse().ok().filter(|number| *number > 0)?;
    Some((name.trim().to_lowercase(), number))
}

struct Record {
    submit: i64,
    run: i64,
    limit: Option<i64>,
    processors: u64,
    user: i64,
    group: i64,
}

/// The numbers of a line, if it is one of a job.
fn fields(line: &str) -> Option<[f64; FIELDS]> {
    let fields: Option<Vec<f64>> = line.split_whitespace().map(|field| field.parse().ok()).collect();
    fields?.try_into().ok()
}

/// A job; `None` if it has never run.
#[allow(clippy::cast_possible_truncation, reason = "a float beyond the range becomes the end of the range")]
fn record(fields: &[f64; FIELDS]) -> Option<Record> {
    let whole = |field: usize| fields[field - 1].round() as i64;
    let known = |field: usize| (fields[field - 1] > 0.0).then(|| whole(field).max(1));
    let run = known(4)?;
    Some(Record {
        submit: whole(2),
        run,
        // Some were stopped a little late.
        limit: known(9).map(|limit| limit.max(run)),
        processors: known(5).or(known(8))?.unsigned_abs(),
        user: whole(12),
        group: whole(13),
    })
}

/// Users and groups get numbers in the order of their appearance.
fn jobs(records: &[Record], cores: u64) -> Vec<Job> {
    let (mut users, mut groups) = (BTreeMap::new(), BTreeMap::new());
    let number = |names: &mut BTreeMap<i64, u32>, name| {
        let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
        *names.entry(name).or_insert(next)
    };
    let jobs = records.iter().map(|record| Job {
        submit: record.submit,
        run: record.run,
        limit: record.limit,
        user: number(&mut users, record.user),
        project: number(&mut groups, record.group),
        kernels: split(record.processors, cores),
    });
    jobs.collect()
}

/// So many processors in parts of so many cores.
fn split(processors: u64, cores: u64) -> Vec<[u64; 3]> {
    let full = usize::try_from(processors / cores).unwrap_or(usize::MAX);
    let mut parts = vec![[cores, 0, 0]; full];
    parts.extend(Some([processors % cores, 0, 0]).filter(|rest| rest[0] > 0));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
; Version: 2.2
; Computer: a machine of our own
;   MaxNodes: 4 (two racks)
; MaxProcs: 32
; Note: no number here

1   100  0   60  4 -1 -1  4  120 -1 1 70 5 -1 1 -1 -1 -1
2   130.4 5 600.0 -1 -1 -1 12 -1 -1 1 71 5 -1 1 -1 -1 -1
3   140 -1   -1 -1 -1 -1  4  120 -1 5 70 5 -1 1 -1 -1 -1
4   150  0  130 16 -1 -1 16  120 -1 0 70 6 -1 1 -1 -1 -1
5   120  0   10 64 -1 -1 64  120 -1 1 70 5 -1 1 -1 -1 -1
";

    #[test]
    fn reads_what_ran_and_fits() {
        let workload = parse(TRACE).unwrap();
        assert_eq!(workload.agents, [[8, 0, 0]; 4]);
        let job = |submit, run, limit, user, project, kernels: &[u64]| Job {
            submit,
            run,
            limit,
            user,
            project,
            kernels: kernels.iter().map(|cores| [*cores, 0, 0]).collect(),
        };
        let expected = [
            job(0, 60, Some(120), 0, 0, &[4]),
            job(30, 600, None, 1, 0, &[8, 4]),
            job(50, 130, Some(130), 0, 1, &[8, 8]),
        ];
        assert_eq!(workload.jobs, expected);
    }

    #[test]
    fn without_a_header_the_biggest_job_tells_the_size() {
        let lines: Vec<_> = TRACE.lines().filter(|line| !line.starts_with(';')).collect();
        let workload = parse(&lines.join("\n")).unwrap();
        assert_eq!(workload.agents, [[16, 0, 0]; 4]);
        assert_eq!(workload.jobs.len(), 4);
    }

    #[test]
    fn a_line_that_is_no_job_is_named() {
        for line in ["1 2 3", "1 100 0 sixty 4 -1 -1 4 120 -1 1 70 5 -1 1 -1 -1 -1"] {
            let error = parse(&format!("; Version: 2.2\n{line}\n")).unwrap_err();
            assert!(error.to_string().contains("line 2"), "{error}");
        }
        assert!(parse("; Version: 2.2\n").is_err());
    }
}
