//! Places on earth as sorted set scores: 52 bits that interleave longitude and latitude.
//!
//! A *cell* is what the first `2 * step` of these bits name; all scores within a cell lie side by
//! side, so a search by area is a search in a few ranges of scores: the cell around the middle and
//! those beside it, at a step at which these cover the area, and then each place for itself.

use std::ops::Range;

/// Steps of a full hash: 26 bits of each coordinate.
pub const MOST_STEPS: u32 = 26;
/// Longitudes that can be kept, in degrees.
pub const LONGITUDES: (f64, f64) = (-180.0, 180.0);
/// Latitudes that can be kept, in degrees: those of the Mercator projection.
pub const LATITUDES: (f64, f64) = (-85.051_128_78, 85.051_128_78);
/// In meters.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// The Mercator projection's half width, in meters.
const MERCATOR: f64 = 20_037_726.37;
const EVEN: u64 = 0x5555_5555_5555_5555;
const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// A place, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// East of Greenwich.
    pub longitude: f64,
    /// North of the equator.
    pub latitude: f64,
}

/// The area of a search, in meters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All within a distance.
    Circle(f64),
    /// Width and height, with the middle in the middle.
    Box(f64, f64),
}

/// The first bits of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bits: u64,
    step: u32,
}

/// Limits of a cell, in degrees.
struct Area {
    longitude: (f64, f64),
    latitude: (f64, f64),
}

fn spread(x: u32) -> u64 {
    let mut x = u64::from(x);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, EVEN),
    ] {
        x = (x | x << shift) & mask;
    }
    x
}

fn gather(x: u64) -> u32 {
    let mut x = x & EVEN;
    for (shift, mask) in [
        (1, 0x3333_3333_3333_3333),
        (2, 0x0f0f_0f0f_0f0f_0f0f),
        (4, 0x00ff_00ff_00ff_00ff),
        (8, 0x0000_ffff_0000_ffff),
        (16, 0x0000_0000_ffff_ffff),
    ] {
        x = (x | x >> shift) & mask;
    }
    x as u32
}

/// Longitudes at the odd bits, latitudes at the even ones; latitudes from `latitudes`.
fn encode(place: Place, latitudes: (f64, f64), step: u32) -> u64 {
    let part = |value: f64, (min, max): (f64, f64)| {
        ((value - min) / (max - min) * (1u64 << step) as f64) as u32
    };
    let (x, y) = (
        part(place.longitude, LONGITUDES),
        part(place.latitude, latitudes),
    );
    spread(y) | spread(x) << 1
}

/// The score of a place that is in the ranges that can be kept.
pub fn score(place: Place) -> u64 {
    encode(place, LATITUDES, MOST_STEPS)
}

/// The bits of a score; scores that no place has give those that a conversion in hardware gives.
fn bits(score: f64) -> u64 {
    if score < TWO_63 {
        truncated(score) as u64
    } else {
        truncated(score - TWO_63) as u64 ^ 1 << 63
    }
}

const TWO_63: f64 = (1u64 << 63) as f64;

/// A score without its fraction; the least integer for what none can hold.
pub fn truncated(score: f64) -> i64 {
    match (-TWO_63..TWO_63).contains(&score) {
        true => score as i64,
        false => i64::MIN,
    }
}

/// The place that a score stands for: the middle of its cell.
pub fn place(score: f64) -> Place {
    let cell = Cell {
        bits: bits(score),
        step: MOST_STEPS,
    };
    let area = cell.area();
    let middle = |(a, b): (f64, f64), (min, max): (f64, f64)| ((a + b) / 2.0).clamp(min, max);
    Place {
        longitude: middle(area.longitude, LONGITUDES),
        latitude: middle(area.latitude, LATITUDES),
    }
}

/// A place's geohash as the world writes it: eleven characters, the last of which is always `0`.
pub fn text(place: Place) -> [u8; 11] {
    let bits = encode(place, (-90.0, 90.0), MOST_STEPS);
    let mut text = [b'0'; 11];
    for (i, c) in text.iter_mut().take(10).enumerate() {
        let digit = bits >> (52 - (i + 1) * 5) & 31;
        *c = b"0123456789bcdefghjkmnpqrstuvwxyz"[digit as usize];
    }
    text
}

/// In meters, on a ball, by the haversine formula.
pub fn distance(a: Place, b: Place) -> f64 {
    let v = ((b.longitude.to_radians() - a.longitude.to_radians()) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance(a, b);
    }
    let (lat_a, lat_b) = (a.latitude.to_radians(), b.latitude.to_radians());
    let u = ((lat_b - lat_a) / 2.0).sin();
    let h = u * u + lat_a.cos() * lat_b.cos() * v * v;
    2.0 * EARTH_RADIUS * h.sqrt().asin()
}

fn latitude_distance(a: Place, b: Place) -> f64 {
    EARTH_RADIUS * (b.latitude.to_radians() - a.latitude.to_radians()).abs()
}

impl Shape {
    /// The distance of a place from the middle, if the place is in the area.
    pub fn distance_within(&self, middle: Place, place: Place) -> Option<f64> {
        match *self {
            Self::Circle(radius) => {
                let distance = distance(middle, place);
                (distance <= radius).then_some(distance)
            }
            Self::Box(width, height) => {
                let beside = Place {
                    longitude: middle.longitude,
                    latitude: place.latitude,
                };
                let inside = latitude_distance(place, middle) <= height / 2.0
                    && distance(place, beside) <= width / 2.0;
                inside.then(|| distance(middle, place))
            }
        }
    }

    /// The area's limits, in degrees.
    fn bounds(&self, middle: Place) -> Area {
        let (width, height) = match *self {
            Self::Circle(radius) => (radius, radius),
            Self::Box(width, height) => (width / 2.0, height / 2.0),
        };
        let degrees = |radians: f64| radians / 1f64.to_radians();
        let up = degrees(height / EARTH_RADIUS);
        // A degree is shortest on the side towards the pole.
        let towards_pole = if middle.latitude < 0.0 { -up } else { up };
        let at = (middle.latitude + towards_pole).to_radians().cos();
        let aside = degrees(width / EARTH_RADIUS / at);
        Area {
            longitude: (middle.longitude - aside, middle.longitude + aside),
            latitude: (middle.latitude - up, middle.latitude + up),
        }
    }

    /// In meters, from the middle to the furthest point.
    fn radius(&self) -> f64 {
        match *self {
            Self::Circle(radius) => radius,
            Self::Box(width, height) => {
                let (w, h) = (width / 2.0, height / 2.0);
                (w * w + h * h).sqrt()
            }
        }
    }

    /// The ranges of scores that hold all places in the area, and others. Some may be the same.
    pub fn ranges(&self, middle: Place) -> Vec<Range<u64>> {
        let bounds = self.bounds(middle);
        let mut step = estimate_step(self.radius(), middle.latitude);
        let mut cell = Cell::around(middle, step);
        if step > 1 && !cell.neighbours_cover(&bounds) {
            step -= 1;
            cell = Cell::around(middle, step);
        }
        let area = cell.area();
        let (mut west, mut east, mut north, mut south) = (true, true, true, true);
        if step >= 2 {
            // A neighbour beyond a limit that the cell itself goes past has nothing to give.
            south = !is_less(area.latitude.0, bounds.latitude.0);
            north = !is_less(bounds.latitude.1, area.latitude.1);
            west = !is_less(area.longitude.0, bounds.longitude.0);
            east = !is_less(bounds.longitude.1, area.longitude.1);
        }
        let cells = [
            (true, (0, 0)),
            (north, (0, 1)),
            (south, (0, -1)),
            (east, (1, 0)),
            (west, (-1, 0)),
            (north && east, (1, 1)),
            (north && west, (-1, 1)),
            (south && east, (1, -1)),
            (south && west, (-1, -1)),
        ];
        let wanted = cells.into_iter().filter(|(wanted, _)| *wanted);
        let mut cells: Vec<Cell> = wanted.map(|(_, (x, y))| cell.moved(x, y)).collect();
        // Where a step leads around the earth, two of the neighbours in a row may be the same.
        let mut neighbours = cells.split_off(1);
        neighbours.dedup();
        cells.append(&mut neighbours);
        cells.into_iter().map(Cell::scores).collect()
    }
}

/// False also where an area without end has no bounds, which read as NaN.
fn is_less(a: f64, b: f64) -> bool {
    a < b
}

/// The step at which a cell and its neighbours are likely to cover a circle.
fn estimate_step(radius: f64, latitude: f64) -> u32 {
    if radius == 0.0 {
        return MOST_STEPS;
    }
    let (mut step, mut range) = (1, radius);
    while range < MERCATOR {
        range *= 2.0;
        step += 1;
    }
    step -= 2;
    // Cells get narrow towards the poles.
    step -= i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    step.clamp(1, MOST_STEPS as i32) as u32
}

impl Cell {
    fn around(place: Place, step: u32) -> Self {
        Self {
            bits: encode(place, LATITUDES, step),
            step,
        }
    }

    fn area(self) -> Area {
        let part = |n: u32, (min, max): (f64, f64)| {
            min + f64::from(n) / (1u64 << self.step) as f64 * (max - min)
        };
        let limits = |n: u32, range| (part(n, range), part(n.wrapping_add(1), range));
        Area {
            longitude: limits(gather(self.bits >> 1), LONGITUDES),
            latitude: limits(gather(self.bits), LATITUDES),
        }
    }

    /// The cell this many to the east and to the north (each -1, 0 or 1), around the earth.
    fn moved(self, x: i32, y: i32) -> Self {
        let shift = 64 - 2 * self.step;
        let step = |own: u64, others: u64, by: i32| {
            let gap = others >> shift;
            let moved = match by {
                0 => return own,
                1.. => own.wrapping_add(gap + 1),
                _ => (own | gap).wrapping_sub(gap + 1),
            };
            moved & !others & (u64::MAX >> shift)
        };
        let (longitude, latitude) = (self.bits & ODD, self.bits & EVEN);
        Self {
            bits: step(longitude, EVEN, x) | step(latitude, ODD, y),
            ..self
        }
    }

    /// True when the cells on the four sides reach as far as `bounds`.
    fn neighbours_cover(self, bounds: &Area) -> bool {
        let ends_early = is_less(self.moved(0, 1).area().latitude.1, bounds.latitude.1)
            || is_less(bounds.latitude.0, self.moved(0, -1).area().latitude.0)
            || is_less(self.moved(1, 0).area().longitude.1, bounds.longitude.1)
            || is_less(bounds.longitude.0, self.moved(-1, 0).area().longitude.0);
        !ends_early
    }

    fn scores(self) -> Range<u64> {
        let shift = 2 * (MOST_STEPS - self.step);
        self.bits << shift..(self.bits + 1) << shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random;

    const PALERMO: Place = Place {
        longitude: 13.361_389,
        latitude: 38.115_556,
    };
    const CATANIA: Place = Place {
        longitude: 15.087_269,
        latitude: 37.502_669,
    };

    #[test]
    fn known_places() {
        assert_eq!(score(PALERMO), 3_479_099_956_230_698);
        assert_eq!(score(CATANIA), 3_479_447_370_796_909);
        let (a, b) = (place(score(PALERMO) as f64), place(score(CATANIA) as f64));
        assert_eq!(format!("{:.4}", distance(a, b)), "166274.1516");
        assert_eq!(&text(a), b"sqc8b49rny0");
        assert_eq!(&text(b), b"sqdtr74hyu0");
    }

    #[test]
    fn any_score_is_some_place() {
        for score in [
            -1.0,
            -1e300,
            1e19,
            f64::INFINITY,
            f64::NEG_INFINITY,
            0.5,
            4.5e15,
        ] {
            let place = place(score);
            assert!((LONGITUDES.0..=LONGITUDES.1).contains(&place.longitude));
            assert!((LATITUDES.0..=LATITUDES.1).contains(&place.latitude));
        }
    }

    fn anywhere() -> Place {
        let part = || random::below(1 << 30) as f64 / f64::from(1 << 30);
        Place {
            longitude: part() * 360.0 - 180.0,
            latitude: part() * 170.0 - 85.0,
        }
    }

    /// Away from the poles and from the line of dates, where Redis too misses some.
    #[test]
    fn ranges_hold_all_places_of_the_area() {
        random::seed(3);
        for _ in 0..2000 {
            let middle = Place {
                longitude: anywhere().longitude / 2.0,
                latitude: anywhere().latitude * 0.7,
            };
            let size = 10f64.powi(random::below(7) as i32) * 0.7;
            let shape = match random::below(2) {
                0 => Shape::Circle(size),
                _ => Shape::Box(size, size * 1.5),
            };
            let ranges = shape.ranges(middle);
            for _ in 0..20 {
                let near = size / 111_000.0 * 2.0 / middle.latitude.to_radians().cos();
                let part = || random::below(1000) as f64 / 500.0 - 1.0;
                let here = Place {
                    longitude: (middle.longitude + near * part()).clamp(-180.0, 180.0),
                    latitude: (middle.latitude + near * part()).clamp(-85.0, 85.0),
                };
                let score = score(here);
                if shape.distance_within(middle, here).is_some() {
                    assert!(
                        ranges.iter().any(|r| r.contains(&score)),
                        "{shape:?} {middle:?}"
                    );
                }
            }
        }
    }
}
