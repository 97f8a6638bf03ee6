//! What applications are told of service bindings (HTTPS and SVCB records).
//!
//! Invariant: a binding says how to speak to the name that was asked for, and never where else to go: it opens no doors.

use hickory_proto::rr::Name;
use hickory_proto::rr::rdata::SVCB;
use hickory_proto::rr::rdata::svcb::{SvcParamKey, SvcParamValue};

/// What is left of a binding; nothing of one that leads elsewhere or can't be used without what is taken from it.
pub(super) fn stripped(binding: &SVCB, owner: &Name) -> Option<SVCB> {
    let is_alias = binding.svc_priority == 0;
    let target = &binding.target_name;
    if is_alias || !(target.is_root() || target.eq_ignore_root(owner)) {
        return None;
    }
    let kept: Vec<_> = binding.svc_params.iter().filter(|(key, _)| is_kept(key)).cloned().collect();
    let needs_more = kept.iter().any(
        |(_, value)| matches!(value, SvcParamValue::Mandatory(mandatory) if !mandatory.0.iter().all(is_kept)),
    );
    (!needs_more).then(|| SVCB::new(binding.svc_priority, Name::root(), kept))
}

/// Addresses beside the answer (`ipv4hint`, `ipv6hint`) would have no doors, and `ech` hides from whoever watches the connection to whom
/// it is. A key that isn't known here may mean the like.
fn is_kept(key: &SvcParamKey) -> bool {
    matches!(key, SvcParamKey::Mandatory | SvcParamKey::Alpn | SvcParamKey::NoDefaultAlpn | SvcParamKey::Port)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::svcb::{Alpn, EchConfigList, IpHint, Mandatory, Unknown};
    use hickory_proto::rr::rdata::{A, AAAA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alpn() -> (SvcParamKey, SvcParamValue) {
        (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()])))
    }

    fn of(priority: u16, target: &str, params: Vec<(SvcParamKey, SvcParamValue)>) -> Option<SVCB> {
        stripped(&SVCB::new(priority, name(target), params), &name("api.example."))
    }

    #[test]
    fn hints_keys_and_what_is_unknown_are_taken_out_and_the_rest_stays() {
        let port = (SvcParamKey::Port, SvcParamValue::Port(8443));
        let params = vec![
            alpn(),
            port.clone(),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A::new(192, 0, 2, 1)]))),
            (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1, 2, 3]))),
            (
                SvcParamKey::Ipv6Hint,
                SvcParamValue::Ipv6Hint(IpHint(vec![AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)])),
            ),
            (SvcParamKey::Key(4711), SvcParamValue::Unknown(Unknown(vec![1]))),
        ];
        assert_eq!(of(1, ".", params).unwrap().svc_params, [alpn(), port]);
    }

    #[test]
    fn a_binding_that_leads_elsewhere_is_dropped_and_one_that_stays_is_kept() {
        assert!(of(0, "other.example.", vec![]).is_none());
        assert!(of(0, ".", vec![]).is_none());
        assert!(of(1, "other.example.", vec![alpn()]).is_none());
        assert!(of(1, ".", vec![alpn()]).is_some());
        assert_eq!(of(1, "API.example.", vec![alpn()]).unwrap().target_name, Name::root());
    }

    #[test]
    fn a_binding_that_needs_what_is_taken_out_is_dropped() {
        let mandatory = |key| (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![key])));
        assert!(of(1, ".", vec![mandatory(SvcParamKey::EchConfigList)]).is_none());
        assert!(of(1, ".", vec![mandatory(SvcParamKey::Alpn), alpn()]).is_some());
    }
}
