//! A first pass over the bytes that only counts.
//!
//! It exists because the validator is recursive where types of components nest, and because it allocates before it
//! finds fault. This pass goes through the same bytes with a loop and stops at the first limit, so that nothing
//! recursive ever sees what is nested deeper than the limit `nesting` says.

use dunlin_model::{Bytes, ComponentLimits, LimitHit, Limits};
use wasmparser::{
    BinaryReader, BinaryReaderError, ComponentAlias, ComponentExport, ComponentExternName, ComponentImport,
    ComponentType, ComponentTypeRef, CoreType, Encoding, FromReader, MemorySectionReader, Parser, Payload,
    TableSectionReader,
};

use crate::limits::MAX_PACKED;
use crate::refusal::{Refusal, shown};

/// What the outermost component imports and exports, by name.
#[derive(Debug, Default)]
pub(crate) struct Surface {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Counts what is in `bytes` and returns the surface of the outermost component.
pub(crate) fn scan(bytes: &[u8], limits: &ComponentLimits) -> Result<Surface, Refusal> {
    let mut counts = Counts::within(*limits);
    let mut surface = Surface::default();
    let mut depth = 0_u64;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| invalid(&error))?;
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(Refusal::CoreModule);
            }
            Payload::Version { .. } => {
                depth += 1;
                check("nesting", limits.nesting, depth)?;
            }
            // `parse_all` enters nested modules and components itself; their `End` brings us back.
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                counts.add_imports(section.count())?;
                for import in section {
                    surface.imports.push(import.map_err(|error| invalid(&error))?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                counts.add_packed(section.count())?;
                for export in section {
                    let export: ComponentExport<'_> = export.map_err(|error| invalid(&error))?;
                    surface.exports.push(export.name.name.to_owned());
                }
            }
            other => counts.add(&other, bytes)?,
        }
    }
    Ok(surface)
}

#[derive(Debug)]
struct Counts {
    limits: ComponentLimits,
    functions: u64,
    types: u64,
    imports: u64,
    data_segments: u64,
    packed: u64,
}

impl Counts {
    fn within(limits: ComponentLimits) -> Self {
        Self { limits, functions: 0, types: 0, imports: 0, data_segments: 0, packed: 0 }
    }

    fn add(&mut self, payload: &Payload<'_>, bytes: &[u8]) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => self.add_types(section.count()),
            Payload::CoreTypeSection(section) => self.add_types(section.count()),
            Payload::ComponentTypeSection(section) => {
                let range = section.range();
                let body = bytes.get(range.start..range.end).unwrap_or_default();
                self.add_component_types(BinaryReader::new(body, range.start))
            }
            Payload::ImportSection(section) => self.add_imports(section.count()),
            Payload::ComponentImportSection(section) => self.add_imports(section.count()),
            Payload::FunctionSection(section) => self.add_functions(section.count()),
            Payload::CodeSectionStart { count, .. } => {
                check("functions", self.limits.functions, u64::from(*count))
            }
            Payload::DataSection(section) => {
                self.data_segments += u64::from(section.count());
                check("data_segments", self.limits.data_segments, self.data_segments)
            }
            Payload::TableSection(section) => {
                check_tables(section)?;
                self.add_packed(section.count())
            }
            Payload::MemorySection(section) => {
                check_memories(section)?;
                self.add_packed(section.count())
            }
            Payload::TagSection(section) => self.add_packed(section.count()),
            Payload::GlobalSection(section) => self.add_packed(section.count()),
            Payload::ExportSection(section) => self.add_packed(section.count()),
            Payload::ElementSection(section) => self.add_packed(section.count()),
            Payload::InstanceSection(section) => self.add_packed(section.count()),
            Payload::ComponentInstanceSection(section) => self.add_packed(section.count()),
            Payload::ComponentAliasSection(section) => self.add_packed(section.count()),
            Payload::ComponentCanonicalSection(section) => self.add_packed(section.count()),
            Payload::ComponentExportSection(section) => self.add_packed(section.count()),
            _ => Ok(()),
        }
    }

    fn add_functions(&mut self, count: u32) -> Result<(), Refusal> {
        self.functions += u64::from(count);
        check("functions", self.limits.functions, self.functions)
    }

    fn add_types(&mut self, count: u32) -> Result<(), Refusal> {
        self.types += u64::from(count);
        check("types", self.limits.types, self.types)
    }

    fn add_imports(&mut self, count: u32) -> Result<(), Refusal> {
        self.imports += u64::from(count);
        check("imports", self.limits.imports, self.imports)
    }

    fn add_packed(&mut self, count: u32) -> Result<(), Refusal> {
        self.packed += u64::from(count);
        check("definitions", MAX_PACKED, self.packed)
    }

    /// Goes through one section of types. A type of a component or an instance holds declarations, which may be
    /// such types again: a stack on the heap remembers how many declarations each open one still has.
    fn add_component_types(&mut self, mut reader: BinaryReader<'_>) -> Result<(), Refusal> {
        let count = reader.read_var_u32().map_err(|error| invalid(&error))?;
        for _ in 0..count {
            let mut open = Vec::new();
            self.open_type(&mut reader, &mut open)?;
            while let Some(left) = open.last_mut() {
                if *left == 0 {
                    open.pop();
                    continue;
                }
                *left -= 1;
                self.read_declaration(&mut reader, &mut open)?;
            }
        }
        Ok(())
    }

    /// Reads a type that holds no others, or the head of one that does, which then is the last of `open`.
    fn open_type(&mut self, reader: &mut BinaryReader<'_>, open: &mut Vec<u32>) -> Result<(), Refusal> {
        /// The first bytes of the type of a component and of an instance.
        const HOLDERS: [u8; 2] = [0x41, 0x42];
        self.add_types(1)?;
        let mut ahead = reader.clone();
        let first = ahead.read_u8().map_err(|error| invalid(&error))?;
        if HOLDERS.contains(&first) {
            open.push(ahead.read_var_u32().map_err(|error| invalid(&error))?);
            *reader = ahead;
            return check("nesting", self.limits.nesting, open.len() as u64);
        }
        read::<ComponentType<'_>>(reader).map(drop)
    }

    fn read_declaration(
        &mut self,
        reader: &mut BinaryReader<'_>,
        open: &mut Vec<u32>,
    ) -> Result<(), Refusal> {
        let mut ahead = reader.clone();
        let kind = ahead.read_u8().map_err(|error| invalid(&error))?;
        *reader = ahead;
        match kind {
            0x00 => {
                self.add_types(1)?;
                read::<CoreType<'_>>(reader).map(drop)
            }
            0x01 => self.open_type(reader, open),
            0x02 => {
                self.add_packed(1)?;
                read::<ComponentAlias<'_>>(reader).map(drop)
            }
            // Counted with definitions, not imports: the type of an imported component may have many.
            0x03 => {
                self.add_packed(1)?;
                read::<ComponentImport<'_>>(reader).map(drop)
            }
            0x04 => {
                self.add_packed(1)?;
                read::<ComponentExternName<'_>>(reader)?;
                read::<ComponentTypeRef>(reader).map(drop)
            }
            other => Err(Refusal::InvalidWasm {
                offset: reader.original_position() as u64,
                message: format!("unknown declaration 0x{other:x} in a component type"),
            }),
        }
    }
}

/// Refuses a memory which begins larger than any manifest may allow: no instance of it could ever be made. One which
/// no WebAssembly knows is left to the validator.
fn check_memories(section: &MemorySectionReader<'_>) -> Result<(), Refusal> {
    const PAGE: u64 = 64 << 10;
    const MOST_PAGES: u64 = 1 << 16;
    for memory in section.clone() {
        let memory = memory.map_err(|error| invalid(&error))?;
        let begins = Bytes(memory.initial.saturating_mul(PAGE));
        if begins > Limits::MAXIMUM.memory && memory.initial <= MOST_PAGES {
            return Err(Refusal::TooComplex(LimitHit::new("memory", Limits::MAXIMUM.memory, begins)));
        }
    }
    Ok(())
}

/// Refuses a table which begins larger than any manifest may allow.
fn check_tables(section: &TableSectionReader<'_>) -> Result<(), Refusal> {
    for table in section.clone() {
        let table = table.map_err(|error| invalid(&error))?;
        check("table_elements", u64::from(Limits::MAXIMUM.table_elements), table.ty.initial)?;
    }
    Ok(())
}

fn read<'a, T: FromReader<'a>>(reader: &mut BinaryReader<'a>) -> Result<T, Refusal> {
    reader.read::<T>().map_err(|error| invalid(&error))
}

fn check(what: &str, limit: u64, observed: u64) -> Result<(), Refusal> {
    if observed <= limit {
        return Ok(());
    }
    Err(Refusal::TooComplex(LimitHit::new(what, limit, observed)))
}

pub(crate) fn invalid(error: &BinaryReaderError) -> Refusal {
    Refusal::InvalidWasm { offset: error.offset() as u64, message: shown(error.message()) }
}
