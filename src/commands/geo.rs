//! Places: sorted sets whose scores are geohashes. Searches are in [`super::geo_search`].

use crate::base::number;
use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Command, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::keyspace::event;
use crate::resp::write::Output;
use crate::types::geohash::{self, Place};
use crate::types::zset::ZSet;

use super::rows::{GROW, READ_KEY};
use super::zsets::{self, AddOptions};

const ADD_KEY: &[KeySpec] = &[KeySpec::at(1, KeyFlags::RW.or(KeyFlags::UPDATE))];

data_rows!(Acl::GEO);

/// The rows.
pub const ROWS: &[Command] = &[
    row("geoadd", -5, GROW, ADD_KEY, geoadd),
    row("geodist", -4, Flags::READONLY, READ_KEY, geodist),
    row("geohash", -2, Flags::READONLY, READ_KEY, geohash),
    row("geopos", -2, Flags::READONLY, READ_KEY, geopos),
];

/// Arguments `at` and `at + 1` as longitude and latitude.
pub(super) fn place_at(args: Args<'_>, at: usize) -> Result<Place, Error> {
    let place = Place {
        longitude: args.float(at)?,
        latitude: args.float(at + 1)?,
    };
    let within = |x: f64, (min, max): (f64, f64)| (min..=max).contains(&x);
    if within(place.longitude, geohash::LONGITUDES) && within(place.latitude, geohash::LATITUDES) {
        return Ok(place);
    }
    Err(Error::err(format_args!(
        "invalid longitude,latitude pair {:.6},{:.6}",
        place.longitude, place.latitude
    )))
}

/// The place of a member.
pub(super) fn place_of(set: &ZSet, member: &[u8]) -> Option<Place> {
    set.score(member).map(geohash::place)
}

/// Argument `i` as a unit: how many meters it has.
pub(super) fn unit_at(args: Args<'_>, i: usize) -> Result<f64, Error> {
    match () {
        () if args.is(i, "m") => Ok(1.0),
        () if args.is(i, "km") => Ok(1000.0),
        () if args.is(i, "ft") => Ok(0.3048),
        () if args.is(i, "mi") => Ok(1609.34),
        () => Err(Error::line(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        )),
    }
}

/// Writes a distance, which is text in both protocols.
pub(super) fn reply_distance(out: &mut Output, distance: f64) {
    let mut text = Vec::with_capacity(24);
    number::format_fixed(&mut text, distance, 4);
    out.bulk(&text);
}

/// Writes longitude and latitude.
pub(super) fn reply_place(out: &mut Output, place: Place) {
    out.array(2);
    out.human_double(place.longitude);
    out.human_double(place.latitude);
}

/// `GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]`
fn geoadd(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let mut options = AddOptions::default();
    let mut words = Cursor::new(args, 2);
    while words.step() {
        match () {
            () if words.is("nx") => options.nx = true,
            () if words.is("xx") => options.xx = true,
            () if words.is("ch") => options.ch = true,
            () => break,
        }
    }
    let from = words.index();
    let given = args.rest(from);
    if !given.len().is_multiple_of(3) || (options.nx && options.xx) || given.is_empty() {
        return Err(Error::Syntax);
    }
    let mut members = Vec::with_capacity(given.len() / 3);
    for i in (from..args.len()).step_by(3) {
        let score = geohash::score(place_at(args, i)?);
        members.push((score as f64, args.all()[i + 2]));
    }
    zsets::add(ctx, options, &members)?;
    propagate_as_zadd(ctx, from, &members);
    Ok(())
}

fn propagate_as_zadd(ctx: &mut DataCtx<'_, '_>, from: usize, members: &[(f64, &[u8])]) {
    if !ctx.db.is_heard() || ctx.db.changes() == 0 {
        return;
    }
    let scores: Vec<String> = members
        .iter()
        .map(|(s, _)| format!("{}", *s as u64))
        .collect();
    let mut form: Vec<&[u8]> = vec![b"zadd"];
    form.extend(&ctx.args.all()[1..from]);
    for (score, (_, member)) in scores.iter().zip(members) {
        form.extend([score.as_bytes(), member]);
    }
    ctx.db.rewrite(&form);
}

/// `GEODIST key member1 member2 [M | KM | FT | MI]`
fn geodist(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let args = ctx.args;
    let unit = match args.len() {
        4 => 1.0,
        5 => unit_at(args, 4)?,
        _ => return Err(Error::Syntax),
    };
    let set = ctx.db.read_as::<ZSet>(&args[1])?;
    let places = set.and_then(|set| place_of(set, &args[2]).zip(place_of(set, &args[3])));
    match places {
        None => ctx.out.null(),
        Some((a, b)) => reply_distance(ctx.out, geohash::distance(a, b) / unit),
    }
    Ok(())
}

/// `GEOHASH key [member [member ...]]`
fn geohash(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    let members = ctx.args.rest(2);
    ctx.out.array(members.len());
    for member in members {
        match set.and_then(|set| place_of(set, member)) {
            Some(place) => ctx.out.bulk(&geohash::text(place)),
            None => ctx.out.null(),
        }
    }
    Ok(())
}

/// `GEOPOS key [member [member ...]]`
fn geopos(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    let set = ctx.db.read_as::<ZSet>(&ctx.args[1])?;
    let members = ctx.args.rest(2);
    ctx.out.array(members.len());
    for member in members {
        match set.and_then(|set| place_of(set, member)) {
            Some(place) => reply_place(ctx.out, place),
            None => ctx.out.null_array(),
        }
    }
    Ok(())
}

/// Stores what a search found, or removes the key when that is nothing, and answers how many.
pub(super) fn store(ctx: &mut DataCtx<'_, '_>, key: &[u8], set: Option<ZSet>, of_search: bool) {
    let Some(set) = set else {
        if ctx.db.remove_replaced(key) {
            ctx.db.changed(key, event::ON_DEL);
        }
        ctx.out.int(0);
        return;
    };
    let count = crate::types::collection::Collection::len(&set) as u64;
    ctx.db.store(key, set);
    let event = match of_search {
        true => event::ON_GEOSEARCHSTORE,
        false => event::ON_GEORADIUSSTORE,
    };
    ctx.db.changed_by(key, event, count);
    ctx.out.uint(count);
}
