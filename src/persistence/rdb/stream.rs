//! Streams, written and read: their blocks as they are, then what is known about them, then the
//! groups, each with what is pending and, consumer by consumer, for whom.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::code;
use super::read::{Corrupt, Reader};
use super::write::Writer;
use crate::types::listpack::Listpack;
use crate::types::stream::{Log, Stream};
use crate::types::stream_block::Block;
use crate::types::stream_group::{Group, Pending};
use crate::types::stream_id::StreamId;

/// Writes a stream without its type code, which is returned.
pub fn write(stream: &Stream, writer: &mut Writer<'_>) {
    writer.len(stream.log.block_count() as u64);
    let _ = stream.log.blocks().try_for_each(|b| block(b, writer));
    write_rest(stream, writer);
}

/// As [`write()`], of a stream that nobody needs afterwards: blocks are freed once they are written.
pub fn write_kept(mut stream: Box<Stream>, writer: &mut Writer<'_>) {
    writer.len(stream.log.block_count() as u64);
    stream.log.consume_blocks(|b| block(b, writer));
    write_rest(&stream, writer);
}

fn block(block: &Block, writer: &mut Writer<'_>) -> ControlFlow<()> {
    writer.string(&block.master.to_be_bytes());
    writer.string(block.as_bytes());
    writer.flow()
}

/// What follows the blocks, if anybody wants it.
fn write_rest(stream: &Stream, writer: &mut Writer<'_>) {
    if !writer.pause() {
        return;
    }
    let log = &stream.log;
    writer.len(log.len());
    for id in [log.last_id, log.first_id(), log.max_deleted_id] {
        write_id(id, writer);
    }
    writer.len(log.entries_added);
    writer.len(stream.groups.len() as u64);
    for (name, group) in &stream.groups {
        writer.string(name);
        write_group(group, writer);
    }
}

fn write_id(id: StreamId, writer: &mut Writer<'_>) {
    writer.len(id.ms);
    writer.len(id.seq);
}

fn write_group(group: &Group, writer: &mut Writer<'_>) {
    write_id(group.last_id, writer);
    // Not known is -1.
    writer.len(group.entries_read.unwrap_or(u64::MAX));
    writer.len(group.pending().len() as u64);
    for (id, pending) in group.pending().iter() {
        writer.raw(&id.to_be_bytes());
        writer.millis(pending.delivered_ms);
        writer.len(pending.count);
        if !writer.pause() {
            return;
        }
    }
    writer.len(group.consumers().len() as u64);
    for consumer in group.consumers() {
        writer.string(&consumer.name);
        writer.millis(consumer.seen_ms);
        writer.len(consumer.pending().len() as u64);
        for id in consumer.pending().keys() {
            writer.raw(&id.to_be_bytes());
            if !writer.pause() {
                return;
            }
        }
    }
}

/// Reads the stream behind one of the three type codes of streams.
pub fn read(code: u8, reader: &mut Reader<'_>) -> Result<Box<Stream>, Corrupt> {
    let mut stream = Box::<Stream>::default();
    let log = &mut stream.log;
    read_blocks(log, reader)?;
    if reader.length()? != log.len() {
        return Err(Corrupt::Invalid(
            "Stream length inconsistent with rax entries",
        ));
    }
    log.last_id = read_id(reader)?;
    if code == code::STREAM_LISTPACKS {
        log.entries_added = log.len();
    } else {
        // The first ID is known from the blocks.
        read_id(reader)?;
        log.max_deleted_id = read_id(reader)?;
        log.entries_added = reader.length()?;
    }
    for _ in 0..reader.count()? {
        let name = reader.string()?;
        let group = read_group(code, log, reader)?;
        if stream.groups.insert(name.into(), group).is_some() {
            return Err(Corrupt::Invalid("Duplicated consumer group name"));
        }
    }
    Ok(stream)
}

fn read_id(reader: &mut Reader<'_>) -> Result<StreamId, Corrupt> {
    Ok(StreamId::new(reader.length()?, reader.length()?))
}

fn read_raw_id(reader: &mut Reader<'_>) -> Result<StreamId, Corrupt> {
    let bytes = reader.raw(16)?.try_into().expect("as many as asked for");
    Ok(StreamId::from_be_bytes(bytes))
}

fn read_blocks(log: &mut Log, reader: &mut Reader<'_>) -> Result<(), Corrupt> {
    let mut last = None;
    for _ in 0..reader.count()? {
        let id: [u8; 16] = (*reader.string()?).try_into().map_err(|_| {
            Corrupt::Invalid("Stream node key entry is not the size of a stream ID")
        })?;
        let master = StreamId::from_be_bytes(id);
        if last.is_some_and(|last| master <= last) {
            return Err(Corrupt::Invalid("Listpack re-added with existing key"));
        }
        last = Some(master);
        let pack = Listpack::from_bytes(&reader.string()?);
        let pack = pack.filter(|pack| Block::validate(pack.pack()));
        let pack = pack.ok_or(Corrupt::Invalid("Stream listpack integrity check failed."))?;
        log.push_block(Block::of(master, pack));
    }
    Ok(())
}

fn read_group(code: u8, log: &Log, reader: &mut Reader<'_>) -> Result<Group, Corrupt> {
    let last_id = read_id(reader)?;
    let entries_read = match code {
        code::STREAM_LISTPACKS => log.count_up_to(last_id),
        _ => Some(reader.length()?).filter(|read| *read != u64::MAX),
    };
    let mut group = Group::new(last_id, entries_read);
    let mut unclaimed = BTreeMap::new();
    for _ in 0..reader.count()? {
        let id = read_raw_id(reader)?;
        let delivery = (reader.millis()?, reader.length()?);
        if unclaimed.insert(id, delivery).is_some() {
            return Err(Corrupt::Invalid(
                "Duplicated global PEL entry loading stream consumer group",
            ));
        }
    }
    for _ in 0..reader.count()? {
        read_consumer(code, &mut group, &mut unclaimed, reader)?;
    }
    match unclaimed.is_empty() {
        true => Ok(group),
        false => Err(Corrupt::Invalid("Stream CG PEL entry without consumer")),
    }
}

fn read_consumer(
    code: u8,
    group: &mut Group,
    unclaimed: &mut BTreeMap<StreamId, (i64, u64)>,
    reader: &mut Reader<'_>,
) -> Result<(), Corrupt> {
    let name = reader.string()?;
    let (consumer, created) = group.find_or_create(&name, reader.millis()?);
    if !created {
        return Err(Corrupt::Invalid("Duplicate stream consumer detected."));
    }
    if code == code::STREAM_LISTPACKS_3 {
        // When it last got something, which 7.0 does not tell.
        reader.millis()?;
    }
    for _ in 0..reader.count()? {
        let id = read_raw_id(reader)?;
        let Some((delivered_ms, count)) = unclaimed.remove(&id) else {
            return Err(Corrupt::Invalid(match group.pending().contains_key(&id) {
                true => "Stream consumer PEL entry already has a consumer assigned",
                false => "Consumer entry not found in group global PEL",
            }));
        };
        let pending = Pending {
            consumer,
            delivered_ms,
            count,
        };
        group.assign(id, pending);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::stream::Limits;

    fn stream() -> Stream {
        let limits = Limits {
            bytes: 4096,
            entries: 2,
        };
        let (mut stream, id) = (Stream::default(), |n| StreamId::new(n, 7));
        for n in 1..6 {
            let added = stream.log.append(id(n), &[b"field", b"value"], &limits);
            added.expect("IDs grow");
        }
        assert!(stream.log.delete(id(2)));
        let mut group = Group::new(id(3), None);
        let (consumer, _) = group.find_or_create(b"alice", 1234);
        group.find_or_create(b"bob", 5678);
        for n in [1, 3] {
            let (delivered_ms, count) = (99, n);
            let pending = Pending {
                consumer,
                delivered_ms,
                count,
            };
            group.assign(id(n), pending);
        }
        stream.groups.insert((*b"group").into(), group);
        stream
    }

    fn written(stream: &Stream) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(stream, &mut Writer::new(&mut bytes, true));
        bytes
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let bytes = written(&stream());
        let mut reader = Reader::new(&bytes);
        let again = read(code::STREAM_LISTPACKS_2, &mut reader).expect("sound");
        assert!(reader.rest().is_empty());
        assert_eq!(written(&again), bytes);
        assert_eq!((again.log.len(), again.groups.len()), (4, 1));
    }

    #[test]
    fn broken_bytes_are_refused_or_read_otherwise() {
        let bytes = written(&stream());
        for len in 0..bytes.len() {
            let cut = read(code::STREAM_LISTPACKS_2, &mut Reader::new(&bytes[..len]));
            assert!(cut.is_err());
        }
        for at in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut broken = bytes.clone();
                broken[at] ^= flip;
                if let Ok(stream) = read(code::STREAM_LISTPACKS_2, &mut Reader::new(&broken)) {
                    written(&stream);
                }
            }
        }
    }
}
