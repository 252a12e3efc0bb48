//! GEOSEARCH and its older kin: which members lie in an area.

use crate::dispatch::args::Args;
use crate::dispatch::command::{Acl, Begin, Command, Find, Flags, KeyFlags, KeySpec};
use crate::dispatch::context::DataCtx;
use crate::dispatch::error::Error;
use crate::dispatch::options::Cursor;
use crate::resp::write::Output;
use crate::types::geohash::{self, Place, Shape};
use crate::types::listpack::Element;
use crate::types::zset::{ScoreRange, ZSet};

use super::rows::{GROW, READ_KEY};
use super::{geo, zsets};

const STORE_KEYS: &[KeySpec] = &[
    KeySpec::at(1, KeyFlags::OVERWRITE),
    KeySpec::at(2, KeyFlags::READ),
];

const RADIUS_KEYS: &[KeySpec] = &radius_keys(6);
const RADIUS_BY_MEMBER_KEYS: &[KeySpec] = &radius_keys(5);

/// The key to be read, and those to be stored to behind a keyword.
const fn radius_keys(from: i32) -> [KeySpec; 3] {
    const fn behind(word: &'static str, from: i32) -> KeySpec {
        KeySpec {
            begin: Begin::Keyword(word, from),
            find: Find::Range {
                last: 0,
                step: 1,
                limit: 0,
            },
            ..KeySpec::at(1, KeyFlags::OVERWRITE)
        }
    }
    [
        KeySpec::at(1, KeyFlags::READ),
        behind("STORE", from),
        behind("STOREDIST", from),
    ]
}

data_rows!(Acl::GEO);

/// The rows.
pub const ROWS: &[Command] = &[
    Command {
        find_keys: Some(find_radius_keys),
        ..row("georadius", -6, GROW, RADIUS_KEYS, georadius)
    },
    Command {
        find_keys: Some(find_radius_keys),
        ..row(
            "georadiusbymember",
            -5,
            GROW,
            RADIUS_BY_MEMBER_KEYS,
            georadiusbymember,
        )
    },
    row("georadius_ro", -6, Flags::READONLY, READ_KEY, georadius_ro),
    row(
        "georadiusbymember_ro",
        -5,
        Flags::READONLY,
        READ_KEY,
        georadiusbymember_ro,
    ),
    row("geosearch", -7, Flags::READONLY, READ_KEY, geosearch),
    row("geosearchstore", -8, GROW, STORE_KEYS, geosearchstore),
];

/// STORE and STOREDIST may be given several times; the last one counts.
fn find_radius_keys(args: Args<'_>, found: &mut dyn FnMut(usize, KeyFlags)) {
    found(1, KeyFlags::READ);
    let (mut i, mut store) = (5, None);
    while i + 1 < args.len() {
        if args.is(i, "store") || args.is(i, "storedist") {
            i += 1;
            store = Some(i);
        }
        i += 1;
    }
    if let Some(store) = store {
        found(store, KeyFlags::OVERWRITE);
    }
}

/// Which command.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// The middle is given as coordinates, or as a member; with STORE unless `read_only`.
    Radius { by_member: bool, read_only: bool },
    /// Middle and area are options.
    Search { stores: bool },
}

/// `GEORADIUS key longitude latitude radius unit [option ...]`
fn georadius(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    radius(ctx, false, false)
}

/// `GEORADIUSBYMEMBER key member radius unit [option ...]`
pub(super) fn georadiusbymember(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    radius(ctx, true, false)
}

/// `GEORADIUS_RO key longitude latitude radius unit [option ...]`
pub(super) fn georadius_ro(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    radius(ctx, false, true)
}

/// `GEORADIUSBYMEMBER_RO key member radius unit [option ...]`
pub(super) fn georadiusbymember_ro(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    radius(ctx, true, true)
}

fn radius(ctx: &mut DataCtx<'_, '_>, by_member: bool, read_only: bool) -> Result<(), Error> {
    search(
        ctx,
        Form::Radius {
            by_member,
            read_only,
        },
    )
}

/// `GEOSEARCH key <FROMMEMBER member | FROMLONLAT longitude latitude> <BYRADIUS radius unit |
/// BYBOX width height unit> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]`
pub(super) fn geosearch(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    search(ctx, Form::Search { stores: false })
}

/// `GEOSEARCHSTORE destination source <FROMMEMBER ... | FROMLONLAT ...> <BYRADIUS ... | BYBOX ...>
/// [ASC | DESC] [COUNT count [ANY]] [STOREDIST]`
pub(super) fn geosearchstore(ctx: &mut DataCtx<'_, '_>) -> Result<(), Error> {
    search(ctx, Form::Search { stores: true })
}

/// What is asked for.
#[derive(Default)]
struct Request<'a> {
    /// Not known while there is no set with the member that it is given by.
    middle: Option<Place>,
    from_member: bool,
    from_place: bool,
    /// In meters.
    area: Option<Shape>,
    /// Meters in the unit.
    unit: f64,
    with_distance: bool,
    with_hash: bool,
    with_place: bool,
    descending: Option<bool>,
    /// 0: all.
    count: usize,
    any: bool,
    store: Option<&'a [u8]>,
    store_distance: bool,
}

fn search(ctx: &mut DataCtx<'_, '_>, form: Form) -> Result<(), Error> {
    let args = ctx.args;
    let source = match form {
        Form::Search { stores: true } => 2,
        _ => 1,
    };
    let set = ctx.db.read_as::<ZSet>(&args[source])?;
    let request = Request::parse(args, form, set)?;
    let found = match set {
        Some(set) => request.find(set),
        None => Vec::new(),
    };
    let Some(store) = request.store else {
        request.reply(ctx.out, &found);
        return Ok(());
    };
    let members: Vec<(f64, Element<'_>)> = found
        .iter()
        .map(|found| match request.store_distance {
            true => (found.distance / request.unit, found.member),
            false => (found.score, found.member),
        })
        .collect();
    let result = (!members.is_empty()).then(|| ZSet::of(&members, zsets::limits(ctx.settings)));
    geo::store(ctx, store, result, matches!(form, Form::Search { .. }));
    Ok(())
}

/// A member that lies in the area.
struct Found<'a> {
    member: Element<'a>,
    score: f64,
    place: Place,
    /// From the middle, in meters.
    distance: f64,
}

/// Argument `i` as a length that is not negative.
fn length_at(
    args: Args<'_>,
    i: usize,
    no_number: &'static str,
    negative: &'static str,
) -> Result<f64, Error> {
    let length = args.float(i).map_err(|_| Error::line(no_number))?;
    if length < 0.0 {
        return Err(Error::line(negative));
    }
    Ok(length)
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>, form: Form, set: Option<&ZSet>) -> Result<Self, Error> {
        let mut request = Self::default();
        let first = match form {
            Form::Search { stores: false } => 2,
            Form::Search { stores: true } => {
                request.store = Some(args.all()[1]);
                3
            }
            Form::Radius {
                by_member: false, ..
            } => {
                request.middle = Some(geo::place_at(args, 2)?);
                request.circle(args, 4)?;
                6
            }
            Form::Radius {
                by_member: true, ..
            } => {
                if let Some(set) = set {
                    request.from(set, &args[2])?;
                    request.circle(args, 3)?;
                }
                5
            }
        };
        let mut words = Cursor::new(args, first);
        while words.step() {
            request.option(args, &mut words, form, set)?;
        }
        request.check(args, form)?;
        Ok(request)
    }

    fn from(&mut self, set: &ZSet, member: &[u8]) -> Result<(), Error> {
        let place = geo::place_of(set, member);
        self.middle = Some(place.ok_or(Error::line("ERR could not decode requested zset member"))?);
        Ok(())
    }

    /// Radius and unit at argument `i`.
    fn circle(&mut self, args: Args<'_>, i: usize) -> Result<(), Error> {
        let negative = "ERR radius cannot be negative";
        let radius = length_at(args, i, "ERR need numeric radius", negative)?;
        self.unit = geo::unit_at(args, i + 1)?;
        self.area = Some(Shape::Circle(radius * self.unit));
        Ok(())
    }

    /// Width, height and unit at argument `i`.
    fn rectangle(&mut self, args: Args<'_>, i: usize) -> Result<(), Error> {
        let number = |i, error| args.float(i).map_err(|_| Error::line(error));
        let width = number(i, "ERR need numeric width")?;
        let height = number(i + 1, "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(Error::line("ERR height or width cannot be negative"));
        }
        self.unit = geo::unit_at(args, i + 2)?;
        self.area = Some(Shape::Box(width * self.unit, height * self.unit));
        Ok(())
    }

    /// Reads the option at hand.
    fn option(
        &mut self,
        args: Args<'a>,
        words: &mut Cursor<'a>,
        form: Form,
        set: Option<&ZSet>,
    ) -> Result<(), Error> {
        let searches = matches!(form, Form::Search { .. });
        let stores = matches!(
            form,
            Form::Radius {
                read_only: false,
                ..
            }
        );
        match () {
            () if words.is("withdist") => self.with_distance = true,
            () if words.is("withhash") => self.with_hash = true,
            () if words.is("withcoord") => self.with_place = true,
            () if words.is("any") => self.any = true,
            () if words.is("asc") => self.descending = Some(false),
            () if words.is("desc") => self.descending = Some(true),
            () if words.is("count") => {
                let count = words.int()?;
                if count <= 0 {
                    return Err(Error::line("ERR COUNT must be > 0"));
                }
                self.count = count as usize;
            }
            () if stores && words.is("store") => {
                (self.store, self.store_distance) = (Some(words.value()?), false);
            }
            () if stores && words.is("storedist") => {
                (self.store, self.store_distance) = (Some(words.value()?), true);
            }
            () if form == (Form::Search { stores: true }) && words.is("storedist") => {
                self.store_distance = true;
            }
            () if searches => self.place_option(args, words, set)?,
            () => return Err(words.refuse()),
        }
        Ok(())
    }

    /// As [`Request::option`], for the middle and the area of GEOSEARCH.
    fn place_option(
        &mut self,
        args: Args<'a>,
        words: &mut Cursor<'a>,
        set: Option<&ZSet>,
    ) -> Result<(), Error> {
        let circle = matches!(self.area, Some(Shape::Circle(_)));
        let rectangle = matches!(self.area, Some(Shape::Box(..)));
        match () {
            () if !self.from_place && words.is("frommember") => {
                let member = words.value()?;
                if let Some(set) = set {
                    self.from(set, member)?;
                }
                self.from_member = true;
            }
            () if !self.from_member && words.has("fromlonlat", 2) => {
                self.middle = Some(geo::place_at(args, words.take_many(2)?)?);
                self.from_place = true;
            }
            () if !rectangle && words.has("byradius", 2) => {
                self.circle(args, words.take_many(2)?)?;
            }
            () if !circle && words.has("bybox", 3) => {
                self.rectangle(args, words.take_many(3)?)?;
            }
            () => return Err(words.refuse()),
        }
        Ok(())
    }

    /// Refuses what does not fit together.
    fn check(&mut self, args: Args<'_>, form: Form) -> Result<(), Error> {
        let shows = self.with_distance || self.with_hash || self.with_place;
        if self.store.is_some() && shows {
            return Err(Error::line(match form {
                Form::Search { .. } => {
                    "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD \
                     options"
                }
                Form::Radius { .. } => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and \
                     WITHCOORD options"
                }
            }));
        }
        if matches!(form, Form::Search { .. }) {
            let missing = |what| Err(Error::quoting(what, &args[0], ""));
            if !self.from_member && !self.from_place {
                return missing("exactly one of FROMMEMBER or FROMLONLAT can be specified for ");
            }
            if self.area.is_none() {
                return missing("exactly one of BYRADIUS and BYBOX can be specified for ");
            }
        }
        if self.any && self.count == 0 {
            return Err(Error::line("ERR the ANY argument requires COUNT argument"));
        }
        // The nearest ones are meant, unless any will do.
        if self.count > 0 && !self.any && self.descending.is_none() {
            self.descending = Some(false);
        }
        Ok(())
    }

    /// The members in the area, as many and in the order as asked for.
    fn find<'s>(&self, set: &'s ZSet) -> Vec<Found<'s>> {
        let (Some(middle), Some(area)) = (self.middle, self.area) else {
            return Vec::new();
        };
        let enough = if self.any { self.count } else { usize::MAX };
        let mut all = Vec::new();
        for scores in area.ranges(middle) {
            let ranks = set.ranks_by_score(&ScoreRange {
                min: scores.start as f64,
                max: scores.end as f64,
                above_min: false,
                below_max: true,
            });
            for (member, score) in set.iter(ranks, false) {
                if all.len() >= enough {
                    break;
                }
                let place = geohash::place(score);
                if let Some(distance) = area.distance_within(middle, place) {
                    all.push(Found {
                        member,
                        score,
                        place,
                        distance,
                    });
                }
            }
        }
        match self.descending {
            None => {}
            Some(false) => all.sort_by(|a, b| a.distance.total_cmp(&b.distance)),
            Some(true) => all.sort_by(|a, b| b.distance.total_cmp(&a.distance)),
        }
        if self.count > 0 {
            all.truncate(self.count);
        }
        all
    }

    fn reply(&self, out: &mut Output, found: &[Found<'_>]) {
        let shown = [self.with_distance, self.with_hash, self.with_place];
        let extras = shown.into_iter().filter(|shown| *shown).count();
        out.array(found.len());
        for found in found {
            if extras > 0 {
                out.array(extras + 1);
            }
            zsets::reply_member(out, found.member);
            if self.with_distance {
                geo::reply_distance(out, found.distance / self.unit);
            }
            if self.with_hash {
                out.int(geohash::truncated(found.score));
            }
            if self.with_place {
                geo::reply_place(out, found.place);
            }
        }
    }
}
