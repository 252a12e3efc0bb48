//! OpenSSL's names of protocols and ciphers, as the suites of rustls.
//!
//! rustls has the suites that are held to be sound today: ECDHE with AES-GCM or ChaCha20. What OpenSSL knows
//! beyond these cannot be turned on: a list that asks for it is told so, and a list of nothing else is refused.
//!
//! Connections live as long as OpenSSL's. rustls would end one of TLS 1.2 and AES-GCM after 2^24 records, which is some
//! minutes for a busy one: by then whoever sees all of them, if each were of 16 kilobytes, might tell them from noise
//! with a probability of 2^-60. No protocol demands that: records are numbered, so no nonce is ever used twice. There
//! are no new keys in TLS 1.2 without a new handshake, so here they serve on, as in OpenSSL; TLS 1.3, which is what is
//! agreed on where both sides have it, changes keys at that limit.

use std::sync::LazyLock;

use rustls::crypto::ring::cipher_suite as suites;
use rustls::{
    CipherSuiteCommon, SupportedCipherSuite, SupportedProtocolVersion, Tls12CipherSuite, version,
};

/// A suite of TLS 1.2: OpenSSL's name, the words that mean it and others like it, and itself.
struct Suite {
    name: &'static str,
    signature: &'static str,
    cipher: &'static [&'static str],
    hash: Option<&'static str>,
    suite: SupportedCipherSuite,
}

/// In OpenSSL's order.
static SUITES: [Suite; 6] = [
    Suite {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        signature: "ECDSA",
        cipher: &["AESGCM", "AES256", "AES"],
        hash: Some("SHA384"),
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    },
    Suite {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        signature: "RSA",
        cipher: &["AESGCM", "AES256", "AES"],
        hash: Some("SHA384"),
        suite: suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    },
    Suite {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        signature: "ECDSA",
        cipher: &["CHACHA20"],
        hash: None,
        suite: suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    },
    Suite {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        signature: "RSA",
        cipher: &["CHACHA20"],
        hash: None,
        suite: suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    },
    Suite {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        signature: "ECDSA",
        cipher: &["AESGCM", "AES128", "AES"],
        hash: Some("SHA256"),
        suite: suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    },
    Suite {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        signature: "RSA",
        cipher: &["AESGCM", "AES128", "AES"],
        hash: Some("SHA256"),
        suite: suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    },
];

/// Suites of TLS 1.3, in OpenSSL's order.
static SUITES_13: [(&str, SupportedCipherSuite); 3] = [
    ("TLS_AES_256_GCM_SHA384", suites::TLS13_AES_256_GCM_SHA384),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        suites::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_AES_128_GCM_SHA256", suites::TLS13_AES_128_GCM_SHA256),
];

/// Suites of TLS 1.3 that OpenSSL has and rustls has not.
const ABSENT_13: [&str; 2] = ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"];

/// The parts of OpenSSL's names, of suites and of groups of them.
const PARTS: &[&str] = &[
    "3DES",
    "ADH",
    "AECDH",
    "AES",
    "AES128",
    "AES256",
    "AESCCM",
    "AESCCM8",
    "AESGCM",
    "ARIA",
    "ARIA128",
    "ARIA256",
    "ARIAGCM",
    "CAMELLIA",
    "CAMELLIA128",
    "CAMELLIA256",
    "CBC",
    "CBC3",
    "CCM",
    "CCM8",
    "CHACHA20",
    "COMPLEMENTOFALL",
    "COMPLEMENTOFDEFAULT",
    "DES",
    "DH",
    "DHE",
    "DSS",
    "ECDH",
    "ECDHE",
    "ECDSA",
    "EDH",
    "EECDH",
    "EXP",
    "EXPORT",
    "FIPS",
    "GCM",
    "GOST",
    "GOST89MAC",
    "GOST94",
    "HIGH",
    "IDEA",
    "LOW",
    "MD5",
    "MEDIUM",
    "NULL",
    "POLY1305",
    "PSK",
    "RC2",
    "RC4",
    "RSA",
    "SEED",
    "SHA",
    "SHA1",
    "SHA256",
    "SHA384",
    "SRP",
    "SSLv3",
    "SUITEB128",
    "SUITEB128ONLY",
    "SUITEB192",
    "TLSv1",
    "TLSv1.0",
    "TLSv1.2",
    "aDSS",
    "aECDSA",
    "aGOST",
    "aNULL",
    "aPSK",
    "aRSA",
    "eNULL",
    "kDH",
    "kDHE",
    "kDHEPSK",
    "kECDH",
    "kECDHE",
    "kECDHEPSK",
    "kEDH",
    "kEECDH",
    "kGOST",
    "kPSK",
    "kRSA",
    "kRSAPSK",
    "kSRP",
    "ALL",
    "DEFAULT",
];

impl Suite {
    /// Whether a word of a cipher list means this suite; words joined by `+` all have to.
    fn is(&self, word: &str) -> bool {
        word == self.name || word.split('+').all(|part| self.goes_by(part))
    }

    fn goes_by(&self, alias: &str) -> bool {
        match alias {
            "ALL" | "DEFAULT" | "HIGH" | "TLSv1.2" | "ECDHE" | "EECDH" | "kEECDH" | "kECDHE" => {
                true
            }
            "FIPS" => !self.cipher.contains(&"CHACHA20"),
            "ECDSA" | "aECDSA" => self.signature == "ECDSA",
            // Without the letter it is the exchange of keys by RSA, which no suite here has.
            "aRSA" => self.signature == "RSA",
            _ => self.cipher.contains(&alias) || self.hash == Some(alias),
        }
    }
}

/// True for a word that OpenSSL has a meaning for.
fn is_known(word: &str) -> bool {
    !word.is_empty() && word.split(['+', '-']).all(|part| PARTS.contains(&part))
}

/// What a list of ciphers says.
#[derive(Debug, Default)]
pub struct Chosen {
    /// The suites, those that are liked best first.
    pub suites: Vec<SupportedCipherSuite>,
    /// What was asked for and is not to be had.
    pub absent: Vec<String>,
}

/// The suites of [`SUITES`], in its order, with keys that serve for as many records as can be numbered.
static LASTING: LazyLock<Vec<Tls12CipherSuite>> = LazyLock::new(|| {
    let of_12 = SUITES.iter().filter_map(|suite| of_12(suite.suite));
    let lasting = of_12.map(|suite| Tls12CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: u64::MAX,
        },
        prf_provider: suite.prf_provider,
        kx: suite.kx,
        sign: suite.sign,
        aead_alg: suite.aead_alg,
    });
    lasting.collect()
});

fn of_12(suite: SupportedCipherSuite) -> Option<&'static Tls12CipherSuite> {
    match suite {
        SupportedCipherSuite::Tls12(suite) => Some(suite),
        SupportedCipherSuite::Tls13(_) => None,
    }
}

/// The same suite, of [`LASTING`].
fn lasting(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    let mut all = LASTING.iter();
    let found = all.find(|lasting| lasting.common.suite == suite.suite());
    found.map_or(suite, SupportedCipherSuite::Tls12)
}

/// A list for TLS 1.2, as `tls-ciphers` has it; an empty one is OpenSSL's default.
///
/// # Errors
/// The word that has no meaning, in a sentence.
pub fn parse(list: &str) -> Result<Chosen, String> {
    let mut active: Vec<&Suite> = Vec::new();
    // What `!` took away does not come back.
    let mut banned: Vec<&str> = Vec::new();
    let mut absent = Vec::new();
    let list = if list.is_empty() { "DEFAULT" } else { list };
    for item in list
        .split([':', ',', ' ', ';'])
        .filter(|item| !item.is_empty())
    {
        let (sign, word) = match item.as_bytes()[0] {
            sign @ (b'!' | b'-' | b'+') => (Some(sign), &item[1..]),
            _ => (None, item),
        };
        if item == "@STRENGTH" {
            active.sort_by_key(|suite| suite.cipher.contains(&"AES128"));
            continue;
        }
        if let Some(level) = item.strip_prefix("@SECLEVEL=") {
            match level.parse() {
                // What is there is good for all of these.
                Ok(0..=3u8) => continue,
                Ok(4..=5) => active.retain(|suite| !suite.cipher.contains(&"AES128")),
                _ => return Err(format!("Unknown security level: {item}")),
            }
            continue;
        }
        let meant: Vec<&Suite> = SUITES.iter().filter(|suite| suite.is(word)).collect();
        if meant.is_empty() && !is_known(word) {
            return Err(format!("Unknown cipher: {word}"));
        }
        match sign {
            Some(b'+') => {
                let (last, first) = active.into_iter().partition(|s| is_among(&meant, s));
                let last: Vec<&Suite> = last;
                active = first;
                active.extend(last);
            }
            Some(sign) => {
                active.retain(|suite| !is_among(&meant, suite));
                if sign == b'!' {
                    banned.extend(meant.iter().map(|suite| suite.name));
                }
            }
            None => {
                if meant.is_empty() {
                    absent.push(word.to_owned());
                }
                for suite in meant {
                    if !is_among(&active, suite) && !banned.contains(&suite.name) {
                        active.push(suite);
                    }
                }
            }
        }
    }
    Ok(Chosen {
        suites: active.iter().map(|suite| lasting(suite.suite)).collect(),
        absent,
    })
}

fn is_among(suites: &[&Suite], suite: &Suite) -> bool {
    suites.iter().any(|other| other.name == suite.name)
}

/// A list for TLS 1.3, as `tls-ciphersuites` has it; an empty one is all of them.
///
/// # Errors
/// The word that has no meaning, in a sentence.
pub fn parse_13(list: &str) -> Result<Chosen, String> {
    let mut chosen = Chosen::default();
    if list.is_empty() {
        chosen.suites = SUITES_13.iter().map(|(_, suite)| *suite).collect();
        return Ok(chosen);
    }
    for word in list.split(':').filter(|word| !word.is_empty()) {
        match SUITES_13.iter().find(|(name, _)| *name == word) {
            Some((_, suite)) if chosen.suites.contains(suite) => {}
            Some((_, suite)) => chosen.suites.push(*suite),
            None if ABSENT_13.contains(&word) => chosen.absent.push(word.to_owned()),
            None => return Err(format!("Unknown cipher suite: {word}")),
        }
    }
    Ok(chosen)
}

/// The versions that `tls-protocols` names, and whether it names ones that are too old for us.
///
/// # Errors
/// A sentence: a word is no protocol, or none is left.
pub fn protocols(list: &str) -> Result<(Vec<&'static SupportedProtocolVersion>, bool), String> {
    let (mut versions, mut has_old) = (Vec::new(), false);
    let list = match list.trim().is_empty() {
        true => "TLSv1.2 TLSv1.3",
        false => list,
    };
    for word in list.split_ascii_whitespace() {
        let version = match word.to_ascii_lowercase().as_str() {
            "tlsv1.3" => &version::TLS13,
            "tlsv1.2" => &version::TLS12,
            "tlsv1" | "tlsv1.1" => {
                has_old = true;
                continue;
            }
            _ => {
                return Err(
                    "Invalid tls-protocols specified. Use a combination of 'TLSv1', 'TLSv1.1', \
                     'TLSv1.2' and 'TLSv1.3'."
                        .to_owned(),
                );
            }
        };
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    match versions.is_empty() {
        true => Err(
            "TLSv1 and TLSv1.1 are not supported: tls-protocols needs 'TLSv1.2' or 'TLSv1.3'."
                .to_owned(),
        ),
        false => Ok((versions, has_old)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<&'static str> {
        let chosen = parse(list).expect("a list");
        let name = |suite: &SupportedCipherSuite| {
            let found = SUITES
                .iter()
                .find(|known| known.suite.suite() == suite.suite());
            found.expect("a suite of ours").name
        };
        chosen.suites.iter().map(name).collect()
    }

    #[test]
    fn lists_mean_what_openssl_says() {
        let all: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
        for list in [
            "",
            "DEFAULT",
            "ALL",
            "HIGH:!aNULL:!MD5",
            "DEFAULT:!MEDIUM",
            "ECDHE",
        ] {
            assert_eq!(names(list), all, "{list}");
        }
        assert_eq!(names("DEFAULT:-AES128-SHA256"), all);
        let rsa = ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"];
        assert_eq!(names("aRSA+AESGCM"), rsa);
        assert_eq!(names("ECDHE+aRSA:-CHACHA20"), rsa);
        assert_eq!(names("AESGCM:!ECDSA:ALL:-CHACHA20"), rsa);
        assert_eq!(names("aRSA:+AES256:!CHACHA20"), [rsa[1], rsa[0]]);
        assert_eq!(names("RSA"), <[&str; 0]>::default());
        let of_one = names("ECDHE-RSA-AES128-GCM-SHA256,ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!(of_one, ["ECDHE-RSA-AES128-GCM-SHA256"]);
    }

    #[test]
    fn keys_last_as_long_as_records_can_be_numbered() {
        let chosen = parse("").expect("a list");
        assert_eq!(chosen.suites.len(), SUITES.len());
        for suite in chosen.suites {
            let suite = of_12(suite).expect("a suite of TLS 1.2");
            assert_eq!(suite.common.confidentiality_limit, u64::MAX, "{suite:?}");
        }
    }

    #[test]
    fn what_is_unknown_or_absent_is_named() {
        assert_eq!(
            parse("DEFAULT:NONSENSE").unwrap_err(),
            "Unknown cipher: NONSENSE"
        );
        assert!(parse("AES256-NONSENSE").is_err());
        assert!(parse("ALL:@SECLEVEL=9").is_err());
        assert_eq!(
            parse("HIGH:AES256-SHA256").unwrap().absent,
            ["AES256-SHA256"]
        );
        assert_eq!(
            parse_13("TLS_NONE").unwrap_err(),
            "Unknown cipher suite: TLS_NONE"
        );
        let suites = parse_13("TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256").unwrap();
        assert_eq!((suites.suites.len(), suites.absent.len()), (1, 1));
    }

    #[test]
    fn protocols_are_read() {
        assert_eq!(protocols("").unwrap().0.len(), 2);
        assert_eq!(
            protocols("tlsv1.1 TLSv1.2").unwrap(),
            (vec![&version::TLS12], true)
        );
        assert!(protocols("TLSv1 TLSv1.1").is_err());
        assert!(protocols("SSLv3").is_err());
    }
}
