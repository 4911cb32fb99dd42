//! Files as a trigger: where they arrive, which are meant, and when they are taken.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::file_format::{CsvFormat, FileFormat, FixedWidthFormat, JsonFormat, NdjsonFormat, XmlFormat};
use crate::data_platform::SecretKeyReference;

/// Files that arrive in a directory or in a bucket. A file is taken when it has not grown for `settle` (and has its trailer, where one is declared), is loaded
/// once whatever it is called, and is moved to `processed/` or `rejected/` beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.directory) != has(self.s3)", "files are in exactly one of directory and s3"))]
#[x_kube(validation = ("[has(self.csv), has(self.ndjson), has(self.json), has(self.xml), has(self.fixedWidth)].filter(x, x).size() <= 1", "files have at most one format: csv, ndjson, json, xml or fixedWidth"))]
pub struct FilesTrigger {
    /// The directory. A relative one is below the worker's files folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub directory: Option<String>,
    /// The bucket, in place of a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Location>,
    /// The PersistentVolumeClaim that is the worker's files folder in a cluster; it must be writable. Left out in `autonomy local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volume_claim: Option<String>,
    /// Which files, as a glob on the file's name, for example `sales-*.csv`. A file that is packed by gzip or zip may have `.gz` or `.zip` behind it.
    /// Of the files in a zip archive those are loaded whose names fit, or the one that is there.
    #[serde(default = "all_files")]
    #[schemars(length(min = 1, max = 256))]
    pub pattern: String,
    /// The file is CSV with a header row; what is meant where no format is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvFormat>,
    /// The file has a JSON value on each line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ndjson: Option<NdjsonFormat>,
    /// The file is a JSON document with an array of records, which are read one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<JsonFormat>,
    /// The file is an XML document with an element for each record, which are read one by one. A record has its attributes under `@name`, its
    /// elements under their local names (those that come several times as a list) and its text under `#text`; an element that has nothing but text
    /// is a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xml: Option<XmlFormat>,
    /// The file's fields are found by their positions, as an AS/400 or a mainframe writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_width: Option<FixedWidthFormat>,
    /// How characters are written: a label of the [Encoding Standard](https://encoding.spec.whatwg.org) such as `utf-8`, `windows-1252` or
    /// `iso-8859-15`, or an EBCDIC code page (`ibm037`, `ibm273`, `ibm500`, `ibm1047`, `ibm1140`, `ibm1141`, `ibm1148`). Where left out, what the
    /// declaration of an XML document names, otherwise `utf-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub encoding: Option<String>,
    /// How long a file must not have changed before it is taken, as a Go duration.
    #[serde(default = "default_settle")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub settle: String,
    /// How long a file that is not whole (without its trailer, or ending in the middle) may stay unchanged before it is rejected as cut short.
    #[serde(default = "default_incomplete_after")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub incomplete_after: String,
    /// Rows in a row with the same value of this column, field or member form one record: the steps run once a record, with the first row under
    /// `row` and all under `rows`. A member further down is named by a JSON Pointer such as `/receipt/number`. Without it each row is a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub group_by: Option<String>,
    /// How many records go into one API request at the most.
    #[serde(default = "default_records_per_request")]
    #[schemars(range(min = 1, max = 5000))]
    pub records_per_request: u32,
}

fn all_files() -> String {
    "*".to_owned()
}

fn default_settle() -> String {
    "1s".to_owned()
}

fn default_incomplete_after() -> String {
    "5m".to_owned()
}

fn default_records_per_request() -> u32 {
    500
}

/// A bucket of S3 or of compatible object storage, which must know conditional writes (`If-None-Match` and `If-Match` of PutObject). What is loaded is
/// moved to `processed/` or `rejected/` below the prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = ("has(self.accessKeyIdFrom) == has(self.secretAccessKeyFrom)", "give both accessKeyIdFrom and secretAccessKeyFrom, or neither"))]
pub struct S3Location {
    /// The bucket's name.
    #[schemars(length(min = 3, max = 255))]
    pub bucket: String,
    /// What the keys of the files begin with, for example `stores/incoming/`: the folder that they arrive in. Those in folders below it are not taken.
    #[serde(default)]
    #[schemars(length(max = 768))]
    pub prefix: String,
    /// The address of the storage, for others than AWS, for example `https://minio.example.org:9000`. It may be `http://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"), length(max = 1024))]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64))]
    pub region: String,
    /// Whether the bucket's name is part of the host's, and not of the path.
    #[serde(default)]
    pub virtual_hosted_style: bool,
    /// The access key's id. Without it and the secret one the worker's environment tells who it is (`AWS_…` variables, a web identity, an instance's role).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id_from: Option<SecretKeyReference>,
    /// The secret access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key_from: Option<SecretKeyReference>,
    /// How often it is looked for files, as a Go duration.
    #[serde(default = "default_poll_interval")]
    #[schemars(regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), length(max = 32))]
    pub poll_interval: String,
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_poll_interval() -> String {
    "10s".to_owned()
}

impl S3Location {
    /// The Secrets' keys that it reads, each with its field's path below `s3`.
    pub fn secret_keys(&self) -> impl Iterator<Item = (&'static str, &SecretKeyReference)> {
        let keys = [("accessKeyIdFrom", &self.access_key_id_from), ("secretAccessKeyFrom", &self.secret_access_key_from)];
        keys.into_iter().filter_map(|(path, key)| Some((path, key.as_ref()?)))
    }
}

impl FilesTrigger {
    /// How its files are written: CSV where it says nothing.
    pub fn format(&self) -> FileFormat {
        if self.ndjson.is_some() {
            FileFormat::Ndjson
        } else if let Some(json) = &self.json {
            FileFormat::Json(json.clone())
        } else if let Some(xml) = &self.xml {
            FileFormat::Xml(xml.clone())
        } else if let Some(fixed_width) = &self.fixed_width {
            FileFormat::FixedWidth(fixed_width.clone())
        } else {
            FileFormat::Csv(self.csv.clone().unwrap_or_default())
        }
    }

    /// Whether it names at most one format, as it must.
    pub fn has_one_format(&self) -> bool {
        let formats = [self.csv.is_some(), self.ndjson.is_some(), self.json.is_some(), self.xml.is_some(), self.fixed_width.is_some()];
        formats.into_iter().filter(|given| *given).count() <= 1
    }
}
