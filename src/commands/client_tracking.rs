//! CLIENT TRACKING and its kin: copies that clients keep of keys, and word of when these are old.

use crate::base::text::before_nul;
use crate::client::registry::flag;
use crate::client::tracking::{Mode, Tracking};
use crate::dispatch::context::ServerCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::dispatch::tracking as copies;
use std::sync::atomic::Ordering::Relaxed;

/// What CLIENT TRACKING was given.
#[derive(Default)]
struct Options<'a> {
    redirect: u64,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    noloop: bool,
    prefixes: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(ctx: &ServerCtx<'a, '_>) -> Result<Self, Error> {
        let mut options = Options::default();
        let mut words = Cursor::new(ctx.args, 3);
        while words.step() {
            match () {
                () if words.has("redirect", 1) => {
                    if options.redirect != 0 {
                        return Err(Error::line(
                            "ERR A client can only redirect to a single other client",
                        ));
                    }
                    let id = u64::try_from(words.int()?).unwrap_or(0);
                    if ctx.shared.clients.get(id).is_none() {
                        return Err(Error::line(
                            "ERR The client ID you want redirect to does not exist",
                        ));
                    }
                    options.redirect = id;
                }
                () if words.is("bcast") => options.broadcast = true,
                () if words.is("optin") => options.opt_in = true,
                () if words.is("optout") => options.opt_out = true,
                () if words.is("noloop") => options.noloop = true,
                () if words.has("prefix", 1) => options.prefixes.push(words.value()?),
                () => return Err(words.refuse()),
            }
        }
        Ok(options)
    }

    /// What does not go together, or not with what the client follows already.
    fn check(&self, now: Option<&Tracking>) -> Result<(), Error> {
        let switches = |to: Mode| now.is_some_and(|now| now.mode == to);
        let wrong = match () {
            () if !self.broadcast && !self.prefixes.is_empty() => {
                "ERR PREFIX option requires BCAST mode to be enabled"
            }
            () if now.is_some_and(|now| now.broadcast != self.broadcast) => {
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
                 then re-enabling it with a different mode."
            }
            () if self.broadcast && (self.opt_in || self.opt_out) => {
                "ERR OPTIN and OPTOUT are not compatible with BCAST"
            }
            () if self.opt_in && self.opt_out => {
                "ERR You can't specify both OPTIN mode and OPTOUT mode"
            }
            () if (self.opt_in && switches(Mode::OptOut))
                || (self.opt_out && switches(Mode::OptIn)) =>
            {
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
                 then re-enabling it with a different mode."
            }
            () => return self.check_prefixes(now),
        };
        Err(Error::line(wrong))
    }

    /// No key may begin with two prefixes of one client.
    fn check_prefixes(&self, now: Option<&Tracking>) -> Result<(), Error> {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let refused = |prefix: &[u8], what: &str, other: &[u8]| {
            let mut line = b"ERR Prefix '".to_vec();
            line.extend_from_slice(before_nul(prefix));
            line.extend_from_slice(format!("' overlaps with {what} prefix '").as_bytes());
            line.extend_from_slice(before_nul(other));
            line.extend_from_slice(b"'. Prefixes for a single client must not overlap.");
            Err(Error::Bytes(line))
        };
        let known = now.map(|now| &now.prefixes);
        for (i, prefix) in self.prefixes.iter().enumerate() {
            let mut known = known.into_iter().flatten();
            if let Some(other) = known.find(|known| overlap(known, prefix)) {
                return refused(prefix, "an existing", other);
            }
            let mut rest = self.prefixes[i + 1..].iter();
            if let Some(other) = rest.find(|other| overlap(other, prefix)) {
                return refused(prefix, "another provided", other);
            }
        }
        Ok(())
    }

    fn mode(&self) -> Mode {
        match (self.opt_in, self.opt_out) {
            (true, _) => Mode::OptIn,
            (_, true) => Mode::OptOut,
            _ => Mode::All,
        }
    }
}

/// `CLIENT TRACKING ON|OFF [REDIRECT client-id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
pub fn tracking(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let options = Options::parse(ctx)?;
    let (shared, held) = (ctx.shared, ctx.held.as_deref_mut());
    match (ctx.args.is(2, "on"), ctx.args.is(2, "off")) {
        (true, _) => {
            let now = ctx.session.tracking.as_deref();
            options.check(now)?;
            let mut tracking = Tracking {
                mode: options.mode(),
                broadcast: options.broadcast,
                noloop: options.noloop,
                caching: now.is_some_and(|now| now.caching),
                prefixes: now.map_or_else(Default::default, |now| now.prefixes.clone()),
            };
            if options.broadcast {
                let all: &[&[u8]] = &[b""];
                let given = match options.prefixes.is_empty() {
                    true => all,
                    false => &options.prefixes,
                };
                tracking
                    .prefixes
                    .extend(given.iter().map(|p| Box::from(*p)));
            }
            copies::begin(shared, ctx.session, held, (tracking, options.redirect))?;
        }
        (_, true) => copies::end(shared, ctx.session, held),
        _ => return Err(Error::Syntax),
    }
    ctx.out.ok();
    Ok(())
}

/// `CLIENT CACHING YES|NO`
pub fn caching(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let Some(tracking) = &mut ctx.session.tracking else {
        return Err(Error::line(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
             OPTOUT mode enabled",
        ));
    };
    let (mode, wrong) = match (ctx.args.is(2, "yes"), ctx.args.is(2, "no")) {
        (true, _) => (
            Mode::OptIn,
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ),
        (_, true) => (
            Mode::OptOut,
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        _ => return Err(Error::Syntax),
    };
    if tracking.mode != mode {
        return Err(Error::line(wrong));
    }
    tracking.caching = true;
    ctx.out.ok();
    Ok(())
}

/// Who is told of changes in the client's place; -1 when nobody is.
fn redirect(ctx: &ServerCtx<'_, '_>) -> i64 {
    match ctx.session.tracking {
        Some(_) => ctx.session.handle.live.redirect.load(Relaxed) as i64,
        None => -1,
    }
}

/// `CLIENT GETREDIR`
pub fn getredir(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    ctx.out.int(redirect(ctx));
    Ok(())
}

/// `CLIENT TRACKINGINFO`
pub fn trackinginfo(ctx: &mut ServerCtx<'_, '_>) -> Result<(), Error> {
    let (session, redirect) = (&*ctx.session, redirect(ctx));
    let tracking = session.tracking.as_deref();
    let is = |holds: fn(&Tracking) -> bool| tracking.is_some_and(holds);
    let is_broken = session.handle.live.flags.load(Relaxed) & flag::TRACKING_BROKEN != 0;
    let flags = [
        (tracking.is_some(), "on"),
        (tracking.is_none(), "off"),
        (is(|t| t.broadcast), "bcast"),
        (is(|t| t.mode == Mode::OptIn), "optin"),
        (is(|t| t.mode == Mode::OptIn && t.caching), "caching-yes"),
        (is(|t| t.mode == Mode::OptOut), "optout"),
        (is(|t| t.mode == Mode::OptOut && t.caching), "caching-no"),
        (is(|t| t.noloop), "noloop"),
        (is_broken, "broken_redirect"),
    ];
    let set: Vec<&str> = flags
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| *name)
        .collect();
    let out = &mut *ctx.out;
    out.map(3);
    out.bulk(b"flags");
    out.set(set.len());
    set.iter().for_each(|name| out.bulk(name.as_bytes()));
    out.bulk(b"redirect");
    out.int(redirect);
    out.bulk(b"prefixes");
    let prefixes = tracking.map(|t| &t.prefixes);
    out.array(prefixes.map_or(0, |p| p.len()));
    prefixes
        .into_iter()
        .flatten()
        .for_each(|prefix| out.bulk(prefix));
    Ok(())
}
