//! The `coco` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    coco::main()
}
