package main

// mistake is a change to one file, the step that has to find it, and what that has to say.
type mistake struct {
	name, file string
	old, new   string
	step, says string
}

// mistakes are of every kind that the check promises to find.
var mistakes = []mistake{
	{"a misspelt argument", "modules/lake-gcp/main.tf", "uniform_bucket_level_access =", "uniform_bucket_access       =", "validate", `An argument named "uniform_bucket_access" is not expected here`},
	{"a required argument is missing", "modules/endpoint-aws/main.tf", "  type              = \"HTTPS\"\n", "", "validate", `The argument "type" is required`},
	{"a value of a wrong type", "modules/endpoint-gcp/variables.tf", "default     = 0\n", "default     = \"none\"\n", "init", "This default value is not compatible with the variable's type constraint"},
	{"an argument of a wrong type", "modules/endpoint-aws/main.tf", "threshold           = 1\n", "threshold           = \"one\"\n", "validate", "a number is required"},
	{"a misspelt block", "modules/lake-gcp/main.tf", "  time_partitioning {", "  time_partition {", "validate", `Blocks of type "time_partition" are not expected here`},
	{"a block that must be there is missing", "modules/endpoint-gcp/main.tf", "        primary {\n          external_endpoints = [for e in local.primary : e.address]\n        }\n", "", "validate", "At least 1 \"primary\" blocks are required"},
	{"a block that may be there once is there twice", "modules/endpoint-gcp/main.tf", "  log_config {\n    enable = true\n  }\n", "  log_config {\n    enable = true\n  }\n  log_config {\n    enable = false\n  }\n", "validate", `No more than 1 "log_config" blocks are allowed`},
	{"a value that is none of an enumeration", "modules/lake-gcp/main.tf", `type  = "DAY"`, `type  = "DAILY"`, "validate", `"DAILY" is none of DAY, HOUR, MONTH, YEAR`},
	{"a value in a nested block that is none of an enumeration", "modules/lake-gcp/main.tf", `type = "AbortIncompleteMultipartUpload"`, `type = "AbortUploads"`, "test", `"AbortUploads" is none of`},
	{"arguments that exclude each other", "examples/aws/main.tf", "module \"endpoint\" {", "resource \"aws_route53_record\" \"www\" {\n  zone_id = aws_route53_zone.shop.zone_id\n  name    = \"www\"\n  type    = \"A\"\n  ttl     = 30\n  alias {\n    name                   = \"x\"\n    zone_id                = \"Z\"\n    evaluate_target_health = true\n  }\n}\n\nmodule \"endpoint\" {", "validate", "alias and ttl exclude each other"},
	{"an unknown resource", "examples/gcp/main.tf", `resource "google_dns_managed_zone" "shop"`, `resource "google_dns_zone" "shop"`, "validate", `does not support resource type "google_dns_zone"`},
	{"an attribute that a resource does not have", "modules/lake-gcp/outputs.tf", "google_storage_bucket.warehouse.name", "google_storage_bucket.warehouse.uri", "validate", `has no argument, nested block, or exported attribute named "uri"`},
	{"a variable that a module does not have", "examples/gcp/main.tf", "  readers  = [", "  reader   = [", "validate", `An argument named "reader" is not expected here`},
	{"an output that a module does not have", "examples/aws/main.tf", "module.endpoint.url", "module.endpoint.uri", "validate", `This object does not have an attribute named "uri"`},
	{"a provider that is too old", "modules/lake-gcp/versions.tf", ">= 6.50", "< 6.0", "init", "no available releases match the given constraints"},
	{"health is asked at another path", "modules/endpoint-aws/variables.tf", `"/routez"`, `"/healthz"`, "test", "health checks"},
	{"a failover record that points to itself", "modules/endpoint-aws/main.tf", `name                   = "${each.key}.${var.name}"`, `name                   = var.name`, "test", "failover records"},
	{"files are deleted by age", "modules/lake-gcp/main.tf", `type          = "SetStorageClass"`, `type          = "Delete"`, "test", "rules"},
	{"a table is partitioned by another column", "modules/lake-gcp/main.tf", `field = "ingested_at"`, `field = "occurred_at"`, "test", "partitions and clusters"},
	{"a bucket that is open", "modules/lake-gcp/main.tf", `"enforced"`, `"inherited"`, "test", "the bucket is not closed"},
	{"a table's file is gone", "modules/lake-gcp/main.tf", `"*.json"`, `"events_p*.json"`, "test", "tables: events_page, events_purchase"},
}
