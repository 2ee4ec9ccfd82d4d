//! Stage 3b: the sections of an object file, of either class and byte order.
#![forbid(unsafe_code)]

use goblin::container::Ctx;
use goblin::elf::section_header::{
    SHF_COMPRESSED, SHN_UNDEF, SHN_XINDEX, SHT_NOBITS, SectionHeader,
};
use goblin::elf::sym::{STB_GLOBAL, STB_WEAK, Sym, Symtab};
use goblin::elf::{Elf, header};

use super::{ModInfo, ModInfoError};

/// The largest .modinfo that is believed; Debian's largest is below 200 KiB.
const SECTION_LIMIT: usize = 4 << 20;

/// A module's file with its table of sections.
pub(in crate::modules) struct Object<'f> {
    file: &'f [u8],
    context: Ctx,
    sections: Vec<SectionHeader>,
    names: &'f [u8],
}

impl<'f> Object<'f> {
    pub(in crate::modules) fn parse(file: &'f [u8]) -> Result<Self, ModInfoError> {
        let invalid = |error: goblin::error::Error| ModInfoError::Header(error.to_string());
        let head = Elf::parse_header(file).map_err(invalid)?;
        let container = head.container().map_err(invalid)?;
        let context = Ctx::new(container, head.endianness().map_err(invalid)?);
        if usize::from(head.e_shentsize) != SectionHeader::size(context) {
            let what = format!("section headers of {} bytes", head.e_shentsize);
            return Err(ModInfoError::Header(what));
        }
        let outside = ModInfoError::Outside("the table of sections");
        let offset = usize::try_from(head.e_shoff).map_err(|_| outside.clone())?;
        if offset < header::SIZEOF_IDENT || offset >= file.len() {
            return Err(outside);
        }
        let sections = SectionHeader::parse(file, offset, usize::from(head.e_shnum), context)
            .map_err(|_| outside)?;
        let names = match u32::from(head.e_shstrndx) {
            // too many sections for 16 bits
            SHN_XINDEX => sections.first().map(|first| first.sh_link).unwrap_or_default(),
            index => index,
        };
        let names = usize::try_from(names).ok().and_then(|index| sections.get(index));
        let names = names
            .and_then(|section| bytes_of(file, section))
            .ok_or(ModInfoError::Outside("the table of section names"))?;
        Ok(Self { file, context, sections, names })
    }

    pub(in crate::modules) fn modinfo(&self) -> Result<ModInfo<'f>, ModInfoError> {
        let section = self.section(b".modinfo").ok_or(ModInfoError::Missing)?;
        if section.sh_type == SHT_NOBITS || section.sh_flags & u64::from(SHF_COMPRESSED) != 0 {
            return Err(ModInfoError::Missing);
        }
        let bytes = bytes_of(self.file, section).ok_or(ModInfoError::Outside(".modinfo"))?;
        if bytes.len() > SECTION_LIMIT {
            return Err(ModInfoError::TooLarge(section.sh_size));
        }
        Ok(ModInfo { section: bytes })
    }

    /// The symbols that other modules may use (`EXPORT_SYMBOL`).
    pub(in crate::modules) fn exported(&self) -> impl Iterator<Item = &'f [u8]> {
        let section = self.section(b"__ksymtab_strings");
        let names = section.and_then(|section| bytes_of(self.file, section)).unwrap_or_default();
        names.split(|byte| *byte == 0).filter(|name| !name.is_empty())
    }

    /// The symbols that must be found elsewhere, in the order of the symbol table.
    pub(in crate::modules) fn undefined(&self) -> impl Iterator<Item = &'f [u8]> {
        let table = self.section(b".symtab");
        let names = table.and_then(|table| self.sections.get(usize::try_from(table.sh_link).ok()?));
        let names = names.and_then(|names| bytes_of(self.file, names)).unwrap_or_default();
        let symbols = table.and_then(|table| {
            let bytes = bytes_of(self.file, table)?;
            Symtab::parse(bytes, 0, bytes.len() / Sym::size(self.context.container), self.context)
                .ok()
        });
        let symbols = symbols.map(|symbols| symbols.iter().collect::<Vec<_>>());
        symbols.into_iter().flatten().filter_map(move |symbol| {
            let wanted = symbol.st_shndx == usize::try_from(SHN_UNDEF).ok()?
                && matches!(symbol.st_bind(), STB_GLOBAL | STB_WEAK);
            let name = names.get(symbol.st_name..).filter(|_| wanted)?;
            name.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())
        })
    }

    fn section(&self, name: &[u8]) -> Option<&SectionHeader> {
        self.sections.iter().find(|section| {
            let found = self.names.get(section.sh_name..).unwrap_or_default();
            found.strip_prefix(name).is_some_and(|rest| matches!(rest.first(), None | Some(0)))
        })
    }
}

fn bytes_of<'f>(file: &'f [u8], section: &SectionHeader) -> Option<&'f [u8]> {
    let start = usize::try_from(section.sh_offset).ok()?;
    let size = usize::try_from(section.sh_size).ok()?;
    file.get(start..start.checked_add(size)?)
}
