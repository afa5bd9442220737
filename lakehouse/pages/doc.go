// Package pages moves the rows of Parquet files into other Parquet files without making rows of them: pages that can stay as they are are copied compressed, dictionaries
// are merged, and where rows change their order one column at a time is moved by value, values of dictionaries by their index. It stands below the lakehouse, which
// rewrites files with it, and knows neither tables nor Iceberg.
//
// It reads what this platform's writers write: data pages of version 2, zstd, PLAIN, dictionaries and DELTA_BINARY_PACKED. Anything else is ErrUnfit, and left to a general
// reader and writer. Files are not trusted: whatever their bytes are, the outcome is rows or an error that names the file.
package pages
