//! Which program this process runs.

use std::fs::File;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use coco_crypto::Digest;

/// SHA-256 of the running executable, as the kernel holds it: replacing the file does not change
/// the answer.
pub fn executable_digest() -> io::Result<Digest> {
    let mut file = File::open("/proc/self/exe")?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        context.update(buffer.get(..count).unwrap_or_default());
    }
    let mut digest = Digest([0; 32]);
    digest.0.copy_from_slice(context.finish().as_ref());
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_digest_of_the_file() {
        let path = std::env::current_exe().unwrap();
        let expected = coco_crypto::sha256(&std::fs::read(path).unwrap());
        assert_eq!(executable_digest().unwrap(), expected);
    }
}
