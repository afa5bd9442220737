variable "project" {
  description = "Project of zone and health check."
  type        = string
}

variable "managed_zone" {
  description = "Name of the public managed zone that holds the name."
  type        = string
}

variable "name" {
  description = "The one name that producers send to, such as ingest.example.com."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$", var.name))
    error_message = "name is a full domain name in lower case, without a dot at its end."
  }
}

variable "policy" {
  description = "failover: the primary endpoints, and the nearest secondary ones once none of those is healthy. weighted: all healthy endpoints by weight."
  type        = string
  default     = "failover"

  validation {
    condition     = contains(["failover", "weighted"], var.policy)
    error_message = "policy is failover or weighted."
  }
}

variable "endpoints" {
  description = "Places that take events, by a short name: their external IPv4 address, Google Cloud region, tier (for failover) and weight (for weighted)."
  type = map(object({
    address  = string
    location = string
    tier     = optional(string, "primary")
    weight   = optional(number, 100)
  }))

  validation {
    condition     = length(var.endpoints) > 0
    error_message = "there is no endpoint."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : contains(["primary", "secondary"], e.tier)])
    error_message = "tier is primary or secondary."
  }
  validation {
    condition     = var.policy != "failover" || (anytrue([for e in var.endpoints : e.tier == "primary"]) && anytrue([for e in var.endpoints : e.tier == "secondary"]))
    error_message = "failover needs an endpoint of tier primary and one of tier secondary."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : e.weight >= 0 && e.weight <= 1000])
    error_message = "weight is 0 to 1000."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : can(cidrhost("${e.address}/32", 0))])
    error_message = "address is an IPv4 address."
  }
}

variable "trickle_ratio" {
  description = "Share of traffic that goes to the secondary endpoints all the time, so that they are known to work."
  type        = number
  default     = 0

  validation {
    condition     = var.trickle_ratio >= 0 && var.trickle_ratio <= 1
    error_message = "trickle_ratio is 0 to 1."
  }
}

variable "ttl" {
  description = "Seconds that resolvers may keep an answer: how long a failover takes beyond its detection."
  type        = number
  default     = 30

  validation {
    condition     = var.ttl >= 0 && var.ttl <= 300
    error_message = "ttl is 0 to 300 s: with more, producers would go on sending to a place that is gone."
  }
}

variable "health" {
  description = "How an endpoint's health is asked. /routez answers 503 when the gateway there should get no new traffic."
  type = object({
    path                = optional(string, "/routez")
    port                = optional(number, 443)
    interval            = optional(number, 30)
    timeout             = optional(number, 5)
    unhealthy_threshold = optional(number, 2)
    healthy_threshold   = optional(number, 2)
    regions             = optional(list(string), ["europe-west1", "us-east1", "asia-east1"])
  })
  default = {}

  validation {
    condition     = length(var.health.regions) == 3
    error_message = "Cloud DNS asks for the health of external endpoints from exactly three regions."
  }
  validation {
    condition     = var.health.interval >= 30 && var.health.timeout < var.health.interval
    error_message = "interval is at least 30 s, and longer than timeout."
  }
}
