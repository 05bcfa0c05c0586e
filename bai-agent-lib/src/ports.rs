//! Host ports and the service ports of kernels (spec agent.md, section 5).

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, TcpListener};
use std::ops::RangeInclusive;

use bai_core::error::{Error, ErrorKind, Result};
use bai_core::port::agent::KernelSpec;
use bai_core::session::ServicePort;
use parking_lot::Mutex;

/// Ports that the kernel itself uses; images and users cannot claim them.
const RESERVED: [u16; 6] = [2000, 2001, 2002, 2003, 2200, 7681];

/// Host ports not given to any kernel. What was given back last is given out last, so that a port rests as long as
/// others are free.
#[derive(Debug)]
pub(crate) struct PortPool {
    host: IpAddr,
    free: Mutex<VecDeque<u16>>,
}

impl PortPool {
    pub(crate) fn new(host: IpAddr, range: RangeInclusive<u16>, taken: &HashSet<u16>) -> Self {
        Self { host, free: Mutex::new(range.filter(|port| !taken.contains(port)).collect()) }
    }

    /// Takes `count` ports that nothing listens on.
    ///
    /// # Errors
    /// `QuotaExceeded` when there are not enough.
    pub(crate) fn take(&self, count: usize) -> Result<Vec<u16>> {
        let mut free = self.free.lock();
        let (mut taken, mut busy) = (Vec::with_capacity(count), Vec::new());
        while taken.len() < count {
            match free.pop_front() {
                Some(port) if TcpListener::bind((self.host, port)).is_ok() => taken.push(port),
                Some(port) => busy.push(port),
                None => {
                    free.extend(taken);
                    free.extend(busy);
                    return Err(Error::new(ErrorKind::QuotaExceeded, "no free host ports are left"));
                }
            }
        }
        free.extend(busy);
        Ok(taken)
    }

    pub(crate) fn give_back(&self, ports: impl IntoIterator<Item = u16>) {
        let mut free = self.free.lock();
        for port in ports {
            if !free.contains(&port) {
                free.push_back(port);
            }
        }
    }
}

/// The service ports of a kernel, host ports still equal to those inside: the label of the image and the user's own
/// ports, on main kernels only.
pub(crate) fn service_ports(spec: &KernelSpec) -> Vec<ServicePort> {
    if spec.role != "main" {
        return Vec::new();
    }
    let label = spec.image_labels.get("ai.backend.service-ports").map_or("", String::as_str);
    let mut seen = HashSet::new();
    let preopen = spec.preopen_ports.iter().map(|port| (port.to_string(), "preopen".to_owned(), vec![*port]));
    parse_label(label)
        .into_iter()
        .chain(preopen)
        .filter(|(_, protocol, ports)| protocol != "pty" && !ports.is_empty())
        .filter(|(_, _, ports)| ports.iter().all(|port| !RESERVED.contains(port)))
        .filter(|(_, _, ports)| ports.iter().all(|port| seen.insert(*port)))
        .map(|(name, protocol, ports)| ServicePort {
            name,
            protocol,
            host_ports: ports.clone(),
            container_ports: ports,
        })
        .collect()
}

/// Reads `name:protocol:port` and `name:protocol:[p1,p2]`, separated by commas; malformed entries are left out.
fn parse_label(label: &str) -> Vec<(String, String, Vec<u16>)> {
    let mut entries = Vec::new();
    let mut rest = label.trim();
    while !rest.is_empty() {
        let end = match (rest.find('['), rest.find(',')) {
            (Some(open), Some(comma)) if open < comma => rest
                .find(']')
                .map_or(rest.len(), |close| rest[close..].find(',').map_or(rest.len(), |c| close + c)),
            (_, Some(comma)) => comma,
            (_, None) => rest.len(),
        };
        let (entry, tail) = rest.split_at(end);
        rest = tail.trim_start_matches(',').trim_start();
        let mut fields = entry.splitn(3, ':').map(str::trim);
        if let (Some(name), Some(protocol), Some(ports)) = (fields.next(), fields.next(), fields.next()) {
            let ports: Result<Vec<u16>, _> =
                ports.trim_matches(['[', ']']).split(',').map(|port| port.trim().parse()).collect();
            entries.extend(ports.ok().map(|ports| (name.to_owned(), protocol.to_owned(), ports)));
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::spec;

    #[test]
    fn labels_and_preopen_ports_are_listed_once() {
        let mut spec = spec();
        let label = "jupyter:http:8080, multi:tcp:[8081,8082],old:pty:3000,bad,sshd:tcp:2200,again:http:8080";
        spec.image_labels.insert("ai.backend.service-ports".into(), label.into());
        spec.preopen_ports = vec![9000, 8082];
        let ports = service_ports(&spec);
        let shown: Vec<_> = ports
            .iter()
            .map(|p| (p.name.as_str(), p.protocol.as_str(), p.container_ports.as_slice()))
            .collect();
        let expected: [(&str, &str, &[u16]); 3] =
            [("jupyter", "http", &[8080]), ("multi", "tcp", &[8081, 8082]), ("9000", "preopen", &[9000])];
        assert_eq!(shown, expected);
        spec.role = "sub".into();
        assert!(service_ports(&spec).is_empty());
    }

    #[test]
    fn busy_ports_are_passed_over_and_a_failure_takes_none() {
        let host = IpAddr::from([127, 0, 0, 1]);
        let busy = TcpListener::bind((host, 0)).unwrap();
        let port = busy.local_addr().unwrap().port();
        let pool = PortPool::new(host, port..=port, &HashSet::new());
        assert_eq!(pool.take(1).unwrap_err().kind(), ErrorKind::QuotaExceeded);
        drop(busy);
        assert_eq!(pool.take(1).unwrap(), [port]);
        assert!(pool.take(1).is_err());
        pool.give_back([port, port]);
        assert_eq!(pool.take(1).unwrap(), [port]);
    }
}
