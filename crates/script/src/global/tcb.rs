//! `ccf.tcbHexToPolicy`: the firmware versions in the TCB number of an SEV-SNP processor.

use rquickjs::{Ctx, Exception, Object, Result, Value};

use super::basic::string_argument;

/// Where each version is in the number, as the byte's place from the least significant (AMD SEV-SNP
/// ABI specification, TCB_VERSION).
const MILAN_AND_GENOA: &[(&str, u32)] =
    &[("boot_loader", 0), ("tee", 1), ("snp", 6), ("microcode", 7)];
const TURIN: &[(&str, u32)] =
    &[("fmc", 0), ("boot_loader", 1), ("tee", 2), ("snp", 3), ("microcode", 7)];

/// `(cpuid, tcb)`, both hex: `{boot_loader, tee, snp, microcode, fmc?, hexstring}`.
pub(super) fn hex_to_policy<'js>(
    ctx: Ctx<'js>,
    cpuid: Value<'js>,
    tcb: Value<'js>,
) -> Result<Object<'js>> {
    let (cpuid, tcb) = (string_argument(&cpuid, "cpuid")?, string_argument(&tcb, "tcb")?);
    let fields = fields(&cpuid).ok_or_else(|| {
        let message = format!("{cpuid:?} is not the CPUID of a Milan, Genoa or Turin processor");
        Exception::throw_message(&ctx, &message)
    })?;
    let version = hex_number(&tcb, 16)
        .ok_or_else(|| Exception::throw_message(&ctx, "The TCB version must be 16 hex digits"))?;
    let policy = Object::new(ctx)?;
    for (name, byte) in fields {
        policy.set(*name, (version >> (8 * byte)) as u8)?;
    }
    policy.set("hexstring", tcb.to_lowercase())?;
    Ok(policy)
}

/// The layout for a CPUID (leaf 1, EAX), which is 8 hex digits.
fn fields(cpuid: &str) -> Option<&'static [(&'static str, u32)]> {
    let eax = hex_number(cpuid, 8)?;
    let family = ((eax >> 8) & 0xf) + ((eax >> 20) & 0xff);
    match family {
        0x19 => Some(MILAN_AND_GENOA),
        0x1a => Some(TURIN),
        _ => None,
    }
}

fn hex_number(text: &str, digits: usize) -> Option<u64> {
    let is_hex = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_follow_the_family() {
        assert_eq!(fields("00a00f11"), Some(MILAN_AND_GENOA));
        assert_eq!(fields("00a10f11"), Some(MILAN_AND_GENOA));
        assert_eq!(fields("00b00f21"), Some(TURIN));
        assert_eq!(fields("00800f11"), None);
        assert_eq!(fields("+0a00f11"), None);
        assert_eq!(fields("a00f11"), None);
    }
}
