//! Path templates and the paths they are matched against.
#![no_main]

use coco_adapter::Template;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (template, path) = input;
    if let Ok(template) = Template::parse(template) {
        let params = template.match_path(path);
        assert!(params.is_none_or(|params| params.len() == template.names().count()));
    }
});
