variable "zone_id" {
  description = "Hosted zone that holds the name."
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

variable "endpoints" {
  description = <<-EOT
    Places that take events, by a short name. Traffic goes to the healthy ones of tier primary by weight, and to those of tier secondary once none of them is healthy.
    host is the name under which the place answers by itself (its health is asked there), and either addresses (IPv4) or load_balancer says where it is.
  EOT
  type = map(object({
    tier      = string
    weight    = optional(number, 100)
    host      = string
    addresses = optional(list(string), [])
    load_balancer = optional(object({
      dns_name = string
      zone_id  = string
    }))
  }))

  validation {
    condition     = anytrue([for e in var.endpoints : e.tier == "primary"])
    error_message = "at least one endpoint has tier primary."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : contains(["primary", "secondary"], e.tier)])
    error_message = "tier is primary or secondary."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : e.weight >= 0 && e.weight <= 255 && floor(e.weight) == e.weight])
    error_message = "weight is a whole number from 0 to 255."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : (length(e.addresses) > 0) != (e.load_balancer != null)])
    error_message = "an endpoint has either addresses or a load_balancer."
  }
  validation {
    condition     = alltrue([for e in var.endpoints : e.host != var.name])
    error_message = "host is the endpoint's own name: the health of the shared name says nothing about one place."
  }
  validation {
    condition     = alltrue([for k in keys(var.endpoints) : can(regex("^[a-z0-9-]{1,64}$", k))])
    error_message = "an endpoint's short name has lower-case letters, digits and dashes."
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
    path              = optional(string, "/routez")
    port              = optional(number, 443)
    request_interval  = optional(number, 10)
    failure_threshold = optional(number, 3)
    regions           = optional(list(string))
  })
  default = {}

  validation {
    condition     = contains([10, 30], var.health.request_interval)
    error_message = "request_interval is 10 or 30 s."
  }
  validation {
    condition     = var.health.failure_threshold >= 1 && var.health.failure_threshold <= 10
    error_message = "failure_threshold is 1 to 10."
  }
  validation {
    condition     = var.health.regions == null ? true : length(var.health.regions) >= 3
    error_message = "health is asked from at least three regions."
  }
}

variable "alarm_actions" {
  description = "ARNs (SNS topics in us-east-1) that are told when an endpoint becomes unhealthy; none: no alarms."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of all that has tags."
  type        = map(string)
  default     = {}
}
