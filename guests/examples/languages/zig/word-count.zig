//! Counts the words of one item. For each item Dunlin starts it with the item's name as first argument and the item's
//! bytes on standard input. It is a plain program: nothing in it knows of Dunlin.

const std = @import("std");

pub fn main(init: std.process.Init) !void {
    const arguments = try init.minimal.args.toSlice(init.arena.allocator());
    const name = if (arguments.len > 1) arguments[1] else "standard input";

    var read_buffer: [64 << 10]u8 = undefined;
    var input = std.Io.File.stdin().readerStreaming(init.io, &read_buffer);
    var words: u64 = 0;
    var in_word = false;
    while (true) {
        const byte = input.interface.takeByte() catch |failure| switch (failure) {
            error.EndOfStream => break,
            error.ReadFailed => return failure,
        };
        const is_part = !std.ascii.isWhitespace(byte);
        if (is_part and !in_word) words += 1;
        in_word = is_part;
    }

    var write_buffer: [1 << 10]u8 = undefined;
    var output = std.Io.File.stdout().writerStreaming(init.io, &write_buffer);
    try output.interface.print("{d} {s}\n", .{ words, name });
    try output.interface.flush();
}
