terraform {
  required_version = ">= 1.6"

  required_providers {
    openstack = {
      source = "terraform-provider-openstack/openstack"
    }
  }
}
