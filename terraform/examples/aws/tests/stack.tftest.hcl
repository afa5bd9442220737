mock_provider "aws" {
  mock_resource "aws_route53_zone" {
    defaults = {
      zone_id      = "ZSHOP"
      name_servers = ["ns-1.example.net", "ns-2.example.net"]
    }
  }
}

variables {
  domain = "shop.example.com"
}

run "the_stack_stands" {
  command = apply
  assert {
    condition     = output.url == "https://ingest.shop.example.com" && length(output.name_servers) == 2
    error_message = "outputs"
  }
  assert {
    condition     = length(module.endpoint.health_check_ids) == 3
    error_message = "health checks"
  }
}
