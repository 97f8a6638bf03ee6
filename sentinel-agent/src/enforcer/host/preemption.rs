//! Kernels that preempt.

use super::*;

#[test]
fn where_a_forbidden_image_could_come_by_nothing_starts_and_elsewhere_it_does() {
    let host = Host::unstarted();
    let started = EbpfEnforcer::start(&host.places);
    if std::env::var_os("SENTINEL_VM_TIER").is_some_and(|tier| tier == "none") {
        let error = started.expect_err("this kernel preempts").to_string();
        assert!(error.contains("this kernel preempts") && error.contains("`bpf` in `lsm=`"), "{error}");
        assert!(!host.places.pins.exists() && !host.places.cgroup.exists(), "nothing is left");
    } else {
        started.unwrap().shutdown().unwrap();
    }
}
