//! The `coco` command whose nodes run the records application.

use std::process::ExitCode;

fn main() -> ExitCode {
    coco::main_with(coco_basic::app())
}
