//! Stage 3b: everything that one module says of itself, read when somebody asks.

use std::fs;

use super::unpack::{self, Buffers};
use super::{Module, ScanProblem, modinfo, tree};

/// What a module's file holds, or for a part of the kernel what the kernel's build wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Bytes on disk and unpacked; `None` for a part of the kernel.
    pub sizes: Option<(u64, u64)>,
    /// Every key and its value, in the order of the file.
    pub info: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Module<'_> {
    /// Reads all that the module says; takes as long as its file is large.
    ///
    /// # Errors
    /// When the file cannot be read or is no module any more.
    pub fn describe(self) -> Result<Description, ScanProblem> {
        match self.path() {
            None => self.describe_builtin(),
            Some(file) => {
                let failed = |what: String| ScanProblem { file: file.clone(), what };
                let mut buffers = Buffers::default();
                let image = unpack::read(&file, &mut buffers).map_err(failed)?;
                let on_disk = fs::metadata(&file).map_err(|error| failed(error.to_string()))?.len();
                let info = modinfo::parse(image).map_err(|error| failed(error.to_string()))?;
                let owned = |(key, value): (&[u8], &[u8])| (key.to_vec(), value.to_vec());
                Ok(Description {
                    sizes: Some((on_disk, image.len() as u64)),
                    info: info.entries().map(owned).collect(),
                })
            }
        }
    }

    fn describe_builtin(self) -> Result<Description, ScanProblem> {
        let file = self.db.folder().join(String::from_utf8_lossy(tree::BUILTIN_INFO).as_ref());
        let list = unpack::read_list(&file).map_err(|what| ScanProblem { file, what })?;
        let list = list.unwrap_or_default();
        let of_this = |(name, ..): &(&[u8], &[u8], &[u8])| {
            name.iter().map(|byte| if *byte == b'-' { b'_' } else { *byte }).eq(self.name().bytes())
        };
        let entries = modinfo::builtin(&list).filter(of_this);
        let info = entries.map(|(_, key, value)| (key.to_vec(), value.to_vec())).collect();
        Ok(Description { sizes: None, info })
    }
}
