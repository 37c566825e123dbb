//! The two encodings of an ECDSA signature: DER (`SEQUENCE { r, s }`) and IEEE P1363 (`r || s`).

use crate::Curve;
use crate::der::{self, NotDer, Reader};

/// Fixed-length `r || s` as DER; `None` if it does not have the curve's length.
pub(crate) fn p1363_to_der(curve: Curve, signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != 2 * curve.scalar_len_bytes() {
        return None;
    }
    let (r, s) = signature.split_at(curve.scalar_len_bytes());
    Some(der::sequence(&[&der::unsigned(r), &der::unsigned(s)]))
}

/// DER as fixed-length `r || s`; `None` if it is not canonical DER or too large for the curve.
pub(crate) fn der_to_p1363(curve: Curve, signature: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = read(signature).ok()?;
    let len = curve.scalar_len_bytes();
    let mut out = Vec::with_capacity(2 * len);
    out.extend_from_slice(&der::left_pad(r, len)?);
    out.extend_from_slice(&der::left_pad(s, len)?);
    Some(out)
}

fn read(signature: &[u8]) -> Result<(&[u8], &[u8]), NotDer> {
    let mut outer = Reader::new(signature);
    let mut inner = outer.enter(der::SEQUENCE)?;
    outer.finish()?;
    let numbers = (inner.read_unsigned()?, inner.read_unsigned()?);
    inner.finish()?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn encodings_convert_both_ways(raw in prop::collection::vec(any::<u8>(), 96)) {
            for curve in [Curve::P256, Curve::P384] {
                let p1363 = &raw[..2 * curve.scalar_len_bytes()];
                let der = p1363_to_der(curve, p1363).unwrap();
                prop_assert_eq!(der_to_p1363(curve, &der).unwrap(), p1363);
                prop_assert_eq!(p1363_to_der(curve, &raw[..95]), None);
                for end in 0..der.len() {
                    prop_assert_eq!(der_to_p1363(curve, &der[..end]), None);
                }
            }
        }

        #[test]
        fn any_bytes_convert_without_panic(bytes: Vec<u8>) {
            if let Some(p1363) = der_to_p1363(Curve::P384, &bytes) {
                prop_assert_eq!(p1363_to_der(Curve::P384, &p1363).unwrap(), bytes);
            }
        }
    }
}
