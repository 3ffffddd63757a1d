resource "aws_instance" "bastion" {
  ami                    = var.image
  instance_type          = var.size
  subnet_id              = var.subnet_id
  vpc_security_group_ids = [var.security_group_id]
  user_data              = var.user_data
  # It is none of the site's nodes, so it does not bear the tag that these are found by.
  tags = { Name = "${var.site}-bastion", ashlar_site = "${var.site}-bastion" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted             = true
    kms_key_id            = var.kms_key
    volume_type           = "gp3"
    volume_size           = 10
    delete_on_termination = true
  }

  lifecycle {
    ignore_changes = [ami, user_data]
  }
}

resource "aws_eip" "bastion" {
  domain   = "vpc"
  instance = aws_instance.bastion.id
  tags     = { Name = "${var.site}-bastion" }
}
