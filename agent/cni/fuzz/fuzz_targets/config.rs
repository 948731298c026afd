//! Whatever a runtime sends on standard input and in `CNI_ARGS` is read or refused.

#![no_main]

use kindnet_cni::config::{CniArgs, Config, Strictness};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let json = parts.next().unwrap_or_default();
    let args = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let args = CniArgs::parse(&args).unwrap_or_default();
    for strictness in [Strictness::Full, Strictness::Identity] {
        let Ok(config) = Config::parse(json, &args, strictness) else {
            continue;
        };
        assert!(config.state_dir().starts_with(&config.data_dir));
        for range in config.sets.iter().flat_map(|set| set.ranges()) {
            let last = range.size() - 1;
            assert_eq!(range.index(range.address(last)), Some(last));
            assert!(range.subnet().contains(&range.address(0)));
        }
    }
});
