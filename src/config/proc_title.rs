//! `proc-title-template`: text with variables in braces, shown by `ps`.

use super::Settings;

/// Fills `template` for a process called `title`. `config_file` is empty when there is none.
///
/// `{{` is a brace. `None` when a brace is left open or names an unknown variable; spaces at both
/// ends are cut off.
pub fn expand(
    settings: &Settings,
    template: &[u8],
    title: &[u8],
    config_file: &[u8],
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = template;
    while let Some(brace) = memchr::memchr(b'{', rest) {
        out.extend_from_slice(&rest[..brace]);
        rest = &rest[brace + 1..];
        if let Some(tail) = rest.strip_prefix(b"{") {
            out.push(b'{');
            rest = tail;
            continue;
        }
        let end = memchr::memchr(b'}', rest)?;
        match &rest[..end] {
            b"title" => out.extend_from_slice(title),
            b"config-file" if config_file.is_empty() => out.push(b'-'),
            b"config-file" => out.extend_from_slice(config_file),
            name => variable(settings, name, &mut out)?,
        }
        rest = &rest[end + 1..];
    }
    out.extend_from_slice(rest);
    let start = out.iter().position(|&b| b != b' ').unwrap_or(out.len());
    let end = out
        .iter()
        .rposition(|&b| b != b' ')
        .map_or(start, |last| last + 1);
    Some(out[start..end].to_vec())
}

fn variable(settings: &Settings, name: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let text = match name {
        b"listen-addr" if settings.port == 0 && settings.tls_port == 0 => {
            out.extend_from_slice(b"unixsocket:");
            return variable(settings, b"unixsocket", out);
        }
        b"listen-addr" => {
            let port = if settings.port != 0 {
                settings.port
            } else {
                settings.tls_port
            };
            let address = settings.bind.first().map_or("*", String::as_str);
            format!("{address}:{port}")
        }
        b"server-mode" if settings.cluster_enabled => "[cluster]".to_owned(),
        b"server-mode" if settings.directives.sentinel_mode => "[sentinel]".to_owned(),
        b"server-mode" => String::new(),
        b"port" => settings.port.to_string(),
        b"tls-port" => settings.tls_port.to_string(),
        b"unixsocket" => {
            out.extend_from_slice(&settings.unixsocket);
            return Some(());
        }
        _ => return None,
    };
    out.extend_from_slice(text.as_bytes());
    Some(())
}

/// The check of a new template: it can be filled, and something is left.
pub(super) fn check(settings: &Settings, template: &super::Text) -> Result<(), String> {
    match expand(settings, template, b"", b"") {
        Some(title) if !title.is_empty() => Ok(()),
        _ => Err("template format is invalid or contains unknown variables".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, expected: Option<&str>) {
        let settings = Settings::default();
        let got = expand(&settings, template.as_bytes(), b"name", b"/etc/redis.conf");
        assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{template:?}");
    }

    #[test]
    fn templates() {
        check("{title} {listen-addr} {server-mode}", Some("name *:6379"));
        check(
            "{config-file}:{port} {tls-port}{unixsocket}",
            Some("/etc/redis.conf:6379 0"),
        );
        check("a {{ b", Some("a { b"));
        check("{", None);
        check("{title", None);
        check("{nothing}", None);
    }
}
