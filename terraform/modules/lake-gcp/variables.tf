variable "project" {
  description = "Project of the lake."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket that is the Iceberg warehouse; unique in all of Google Cloud."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket has 3 to 63 lower-case letters, digits, dashes, underscores and dots."
  }
}

variable "location" {
  description = "Where bucket and dataset are: a region (europe-west3) or multi-region (EU). A load job needs both in the same."
  type        = string
}

variable "dataset" {
  description = "BigQuery dataset; the platform's name for it is millrace."
  type        = string
  default     = "millrace"

  validation {
    condition     = can(regex("^[A-Za-z0-9_]+$", var.dataset))
    error_message = "dataset has letters, digits and underscores."
  }
}

variable "tiers" {
  description = "Storage classes of data files by age in days. Metadata stays where it is: every read begins there."
  type = list(object({
    age           = number
    storage_class = string
  }))
  default = [
    { age = 30, storage_class = "NEARLINE" },
    { age = 90, storage_class = "COLDLINE" },
    { age = 365, storage_class = "ARCHIVE" },
  ]

  validation {
    condition     = alltrue([for t in var.tiers : contains(["NEARLINE", "COLDLINE", "ARCHIVE"], t.storage_class)])
    error_message = "storage_class is NEARLINE, COLDLINE or ARCHIVE."
  }
  validation {
    condition     = alltrue([for t in var.tiers : t.age >= 1]) && [for t in var.tiers : t.age] == [for s in sort([for t in var.tiers : format("%06d", t.age)]) : tonumber(s)]
    error_message = "tiers are in the order of their ages, which are at least a day."
  }
}

variable "undelete_days" {
  description = "Days for which a deleted object can be brought back (soft delete): 0, or 7 to 90. An erased person's data is gone only after these."
  type        = number
  default     = 7

  validation {
    condition     = var.undelete_days == 0 || (var.undelete_days >= 7 && var.undelete_days <= 90)
    error_message = "undelete_days is 0, or 7 to 90."
  }
}

variable "kms_key" {
  description = "Cloud KMS key of bucket and dataset; null: Google's own keys."
  type        = string
  default     = null
}

variable "readers" {
  description = "Who may read lake and dataset: members such as group:analysts@example.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for r in var.readers : can(regex("^(user|group|serviceAccount):[^:]+$", r))])
    error_message = "a reader is user:, group: or serviceAccount: and an address; all of the internet is none."
  }
}

variable "workload_identities" {
  description = "Kubernetes service accounts that may act as a role of the platform: {sink = [\"millrace/sink-iceberg\"], batch = [\"millrace/batch\"]}, each namespace/name."
  type        = map(list(string))
  default     = {}

  validation {
    condition     = alltrue([for k in keys(var.workload_identities) : contains(["sink", "batch"], k)])
    error_message = "the roles with an account of their own are sink and batch."
  }
  validation {
    condition     = alltrue(flatten([for l in values(var.workload_identities) : [for n in l : can(regex("^[a-z0-9-]+/[a-z0-9-]+$", n))]]))
    error_message = "a Kubernetes service account is namespace/name."
  }
}

variable "deletion_protection" {
  description = "Refuse to destroy bucket and tables that hold something."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of all that has labels."
  type        = map(string)
  default     = {}
}
