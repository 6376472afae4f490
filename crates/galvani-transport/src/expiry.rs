//! Until when a certificate is good, read from its bytes.
//!
//! The TLS library judges validity and does not tell it. What is read here decides nothing: it is for
//! warnings before the end. A certificate that does not hold together has no end that is known.
//! Source: RFC 5280, sections 4.1 and 4.1.2.5.

use rustls_pki_types::CertificateDer;

/// The end of a certificate's validity in seconds since 1970, if it can be read.
pub(crate) fn expires_s(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate, _) = element(certificate, SEQUENCE)?;
    let (_, mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields, VERSION)?.2;
    }
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        fields = element(fields, tag)?.2;
    }
    let (_, validity, _) = element(fields, SEQUENCE)?;
    let (_, _, not_after) = any(validity)?;
    let (tag, time, _) = any(not_after)?;
    seconds(tag, time)
}

/// The next element's tag, contents, and what is behind it.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

fn element(bytes: &[u8], tag: u8) -> Option<(u8, &[u8], &[u8])> {
    any(bytes).filter(|(found, ..)| *found == tag)
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |at: usize, length: usize| -> Option<i64> {
        let text = std::str::from_utf8(digits.get(at..at + length)?).ok()?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let short = number(0, 2)?;
            (if short < 50 { 2000 + short } else { 1900 + short }, 2)
        }
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let time = number(at + 4, 2)? * 3_600 + number(at + 6, 2)? * 60 + number(at + 8, 2)?;
    u64::try_from(days_since_1970(year, month, day) * 86_400 + time).ok()
}

/// Days from 1970-01-01 in the Gregorian calendar, with years that begin in March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, in_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + day_of_year - 719_468
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::{GENERALIZED_TIME, UTC_TIME, expires_s, seconds};
    use crate::pki::ClusterCa;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn times_are_read_in_both_forms() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "000229123456Z", Some(951_827_696)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "20991231235959Z", Some(4_102_444_799)),
            (UTC_TIME, "700101000000", None),
            (UTC_TIME, "20500101000000Z", None),
            (GENERALIZED_TIME, "20501301000000Z", None),
            (GENERALIZED_TIME, "2050+1-1000000Z", None),
        ] {
            assert_eq!(seconds(tag, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_ends_when_it_was_issued_to_end_and_damaged_ones_never_panic() {
        let ca = ClusterCa::create("c0ffee").expect("made");
        let life = Duration::from_secs(90_000);
        let node = "00000000000000000000000000000007";
        let identity = ca.issue_node_for(node, &[], life).expect("issued");
        let der = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes()).expect("PEM");
        let ends = expires_s(&der).expect("it is whole");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert!((now + 89_900..=now + 90_000).contains(&ends), "{now} {ends}");
        assert_eq!(identity.expires_s(), Some(ends));
        for at in 0..der.len() {
            let mut bytes = der.to_vec();
            bytes[at] ^= 0xff;
            // Any answer will do, but one.
            let _ = expires_s(&bytes.into());
            let _ = expires_s(&der[..at].to_vec().into());
        }
    }
}
